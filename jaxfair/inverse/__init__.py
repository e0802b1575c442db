"""Inputs and latents optimised through trained models: equilibrium, diffusion, compressed sensing."""

from jaxfair.inverse import diffusion as diffusion
from jaxfair.inverse.compressed_sensing.bases import dct_basis as dct_basis
from jaxfair.inverse.compressed_sensing.bases import haar_basis as haar_basis
from jaxfair.inverse.compressed_sensing.lasso import Lasso as Lasso
from jaxfair.inverse.compressed_sensing.lasso import lasso as lasso
from jaxfair.inverse.compressed_sensing.latent_search import Latents as Latents
from jaxfair.inverse.compressed_sensing.latent_search import latent_search as latent_search
from jaxfair.inverse.compressed_sensing.latent_search import latent_starts as latent_starts
from jaxfair.inverse.compressed_sensing.linear import LinearEstimate as LinearEstimate
from jaxfair.inverse.compressed_sensing.linear import consistent as consistent
from jaxfair.inverse.compressed_sensing.linear import lmmse as lmmse
from jaxfair.inverse.compressed_sensing.measurements import block_measurements as block_measurements
from jaxfair.inverse.compressed_sensing.measurements import gaussian_measurements as gaussian_measurements
from jaxfair.inverse.compressed_sensing.measurements import pixel_measurements as pixel_measurements
from jaxfair.inverse.compressed_sensing.negative_evidence import NegativeEvidence as NegativeEvidence
from jaxfair.inverse.compressed_sensing.negative_evidence import negative_evidence as negative_evidence
from jaxfair.inverse.compressed_sensing.projected_search import projected_search as projected_search
from jaxfair.inverse.equilibrium import equilibrium as equilibrium
from jaxfair.inverse.joint_inference import Found as Found
from jaxfair.inverse.joint_inference import Joint as Joint
from jaxfair.inverse.joint_inference import joint_inference as joint_inference
from jaxfair.inverse.joint_inference import joint_map as joint_map
from jaxfair.inverse.joint_inference import lagrangian as lagrangian
