"""jaxfair: train fair, compressed networks in JAX."""
