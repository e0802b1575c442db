"""Pruning by second-order information: one gradient per example, least squares, and inverses of Fisher matrices."""

from jaxfair.sparsity.second_order.chita import ChitaResult as ChitaResult
from jaxfair.sparsity.second_order.chita import chita as chita
from jaxfair.sparsity.second_order.chita import chita_solve as chita_solve
from jaxfair.sparsity.second_order.chita_block import ChitaBlockResult as ChitaBlockResult
from jaxfair.sparsity.second_order.chita_block import chita_block as chita_block
from jaxfair.sparsity.second_order.chita_block import chita_block_solve as chita_block_solve
from jaxfair.sparsity.second_order.chita_stages import chita_stages as chita_stages
from jaxfair.sparsity.second_order.chita_stages import stage_sparsities as stage_sparsities
from jaxfair.sparsity.second_order.example_gradients import example_gradients as example_gradients
from jaxfair.sparsity.second_order.example_gradients import flatten_prunable as flatten_prunable
from jaxfair.sparsity.second_order.example_gradients import unflatten_masks as unflatten_masks
from jaxfair.sparsity.second_order.example_gradients import unflatten_prunable as unflatten_prunable
from jaxfair.sparsity.second_order.woodfisher import WoodFisherResult as WoodFisherResult
from jaxfair.sparsity.second_order.woodfisher import woodfisher as woodfisher
from jaxfair.sparsity.second_order.woodfisher import woodfisher_inverse as woodfisher_inverse
from jaxfair.sparsity.second_order.woodfisher import woodfisher_solve as woodfisher_solve
