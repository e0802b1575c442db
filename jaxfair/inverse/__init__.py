"""Inputs and latents optimised through trained models: equilibrium, diffusion, compressed sensing."""

from jaxfair.inverse.equilibrium import equilibrium as equilibrium
from jaxfair.inverse.joint_inference import Found as Found
from jaxfair.inverse.joint_inference import Joint as Joint
from jaxfair.inverse.joint_inference import joint_inference as joint_inference
from jaxfair.inverse.joint_inference import joint_map as joint_map
from jaxfair.inverse.joint_inference import lagrangian as lagrangian
