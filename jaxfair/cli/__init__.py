"""What a person types: flags, and the command ``jaxfair``. The roof of the library; nothing in it imports this."""
