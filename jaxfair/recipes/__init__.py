"""The jobs whole: from a model and data to networks that may be shipped."""

from jaxfair.recipes._bounds import BATCHES as BATCHES
from jaxfair.recipes._bounds import Bound as Bound
from jaxfair.recipes._bounds import Bounded as Bounded
from jaxfair.recipes._bounds import Facts as Facts
from jaxfair.recipes._bounds import accuracy_gap as accuracy_gap
from jaxfair.recipes._bounds import ceag as ceag
from jaxfair.recipes._bounds import ceag_published as ceag_published
from jaxfair.recipes._bounds import equalized_loss as equalized_loss
from jaxfair.recipes._bounds import power_of as power_of
from jaxfair.recipes._bounds import rates as rates
from jaxfair.recipes._networks import Networks as Networks
from jaxfair.recipes._networks import networks as networks
from jaxfair.recipes._progress import Progress as Progress
from jaxfair.recipes.base import Base as Base
from jaxfair.recipes.base import base as base
from jaxfair.recipes.dense import dense as dense
from jaxfair.recipes.prune import prune as prune
from jaxfair.recipes.pruner import SPARSE as SPARSE
from jaxfair.recipes.pruner import pruner as pruner
from jaxfair.recipes.settings import Setting as Setting
from jaxfair.recipes.settings import gains as gains
from jaxfair.recipes.settings import sweep_settings as sweep_settings
from jaxfair.recipes.sparse import Sparse as Sparse
from jaxfair.recipes.sparse import sparse as sparse
from jaxfair.recipes.sweep import Swept as Swept
from jaxfair.recipes.sweep import sweep as sweep
