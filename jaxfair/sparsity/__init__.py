"""Pruning as optax transformations: score x distribution x schedule x structure."""

from jaxfair.sparsity.distributions import Distribution as Distribution
from jaxfair.sparsity.distributions import global_ as global_
from jaxfair.sparsity.distributions import uniform as uniform
from jaxfair.sparsity.files import Saved as Saved
from jaxfair.sparsity.files import load as load
from jaxfair.sparsity.files import save as save
from jaxfair.sparsity.masks import apply_masks as apply_masks
from jaxfair.sparsity.masks import get_masks as get_masks
from jaxfair.sparsity.moments import reset_moments as reset_moments
from jaxfair.sparsity.prune import PruneState as PruneState
from jaxfair.sparsity.prune import prune as prune
from jaxfair.sparsity.report import LayerSparsity as LayerSparsity
from jaxfair.sparsity.report import SparsityReport as SparsityReport
from jaxfair.sparsity.report import sparsity_report as sparsity_report
from jaxfair.sparsity.schedules import Schedule as Schedule
from jaxfair.sparsity.schedules import constant as constant
from jaxfair.sparsity.schedules import polynomial as polynomial
from jaxfair.sparsity.scores import magnitude as magnitude
from jaxfair.sparsity.scores import saliency as saliency
from jaxfair.sparsity.structures import Structure as Structure
from jaxfair.sparsity.structures import unstructured as unstructured
from jaxfair.sparsity.top_k import global_top_k as global_top_k
from jaxfair.sparsity.top_k import top_k as top_k
