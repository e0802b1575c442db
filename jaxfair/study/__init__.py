"""A study: what is wanted, what is done, and what it says. Knows no training."""

from jaxfair.study.folder import FolderError as FolderError
from jaxfair.study.folder import alone_in as alone_in
from jaxfair.study.folder import check_folder as check_folder
from jaxfair.study.folder import claim_folder as claim_folder
from jaxfair.study.interrupt import Stopped as Stopped
from jaxfair.study.interrupt import interruptible as interruptible
from jaxfair.study.records import append as append
from jaxfair.study.records import dumps as dumps
from jaxfair.study.records import loads as loads
from jaxfair.study.records import read as read
from jaxfair.study.records import truncate as truncate
