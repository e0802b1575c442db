"""How fast the library is: against its own plain step, and against its peers."""
