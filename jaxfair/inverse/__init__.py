"""Inputs and latents optimised through trained models: equilibrium, diffusion, compressed sensing."""

from jaxfair.inverse import diffusion as diffusion
