"""Datasets as arrays with groups.

:func:`load` is the door: ``data.load("adult", groups=("race", "sex"))``.
"""

from jaxfair.data._celeba import celeb_a as celeb_a
from jaxfair.data._cifar import cifar10 as cifar10
from jaxfair.data._cifar import cifar100 as cifar100
from jaxfair.data._cifar import fashion_mnist as fashion_mnist
from jaxfair.data._dataset import Dataset as Dataset
from jaxfair.data._errors import DataError as DataError
from jaxfair.data._errors import DataWarning as DataWarning
from jaxfair.data._faces import fairface as fairface
from jaxfair.data._faces import lfw as lfw
from jaxfair.data._faces import utkface as utkface
from jaxfair.data._groups import Attribute as Attribute
from jaxfair.data._groups import intersect as intersect
from jaxfair.data._splits import of_each_class as of_each_class
from jaxfair.data._splits import sample as sample
from jaxfair.data.adult import adult as adult
from jaxfair.data.columns import columns as columns
from jaxfair.data.digits import digits as digits
from jaxfair.data.inputs import inputs as inputs
from jaxfair.data.load import load as load
from jaxfair.data.load import names as names
from jaxfair.data.own import dataset as dataset
from jaxfair.data.own import own as own
from jaxfair.data.planted import bayes_accuracy as bayes_accuracy
from jaxfair.data.planted import planted as planted
from jaxfair.data.planted import planted_many as planted_many
from jaxfair.data.spurious import spurious as spurious
from jaxfair.data.stream import Source as Source
from jaxfair.data.stream import fits as fits
from jaxfair.data.stream import gather as gather
from jaxfair.data.stream import in_memory as in_memory
from jaxfair.data.stream import num_bytes as num_bytes
from jaxfair.data.stream import stream as stream
from jaxfair.typing import Batch as Batch
