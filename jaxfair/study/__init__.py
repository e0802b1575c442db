"""A study: what is wanted, what is done, and what it says. Knows no training."""

from jaxfair.study.cells import Cell as Cell
from jaxfair.study.cells import Run as Run
from jaxfair.study.cells import grid as grid
from jaxfair.study.cells import in_words as in_words
from jaxfair.study.cells import settings_of as settings_of
from jaxfair.study.claims import Claim as Claim
from jaxfair.study.claims import Found as Found
from jaxfair.study.claims import judge as judge
from jaxfair.study.claims import percent as percent
from jaxfair.study.compare import by_seed as by_seed
from jaxfair.study.compare import chosen as chosen
from jaxfair.study.compare import over_seeds as over_seeds
from jaxfair.study.compare import paired as paired
from jaxfair.study.compare import values as values
from jaxfair.study.folder import FolderError as FolderError
from jaxfair.study.folder import alone_in as alone_in
from jaxfair.study.folder import check_folder as check_folder
from jaxfair.study.folder import claim_folder as claim_folder
from jaxfair.study.folder import opened as opened
from jaxfair.study.interrupt import Stopped as Stopped
from jaxfair.study.interrupt import interruptible as interruptible
from jaxfair.study.records import append as append
from jaxfair.study.records import dumps as dumps
from jaxfair.study.records import loads as loads
from jaxfair.study.records import read as read
from jaxfair.study.records import truncate as truncate
