"""Networks behind the seam `Model(init, apply, prunable, split)`. The only place that imports Flax."""

from jaxfair.models._mobilenet import mobilenet_v2 as mobilenet_v2
from jaxfair.models._registry import REGISTRY as REGISTRY
from jaxfair.models._registry import UnknownModel as UnknownModel
from jaxfair.models._registry import build as build
from jaxfair.models._registry import resized as resized
from jaxfair.models._torch import from_torch as from_torch
from jaxfair.models._torch import to_torch as to_torch
from jaxfair.models.channels import channels_of as channels_of
from jaxfair.models.cifar_resnet import cifar_resnet as cifar_resnet
from jaxfair.models.cifar_resnet import cifar_resnet20 as cifar_resnet20
from jaxfair.models.cifar_resnet import cifar_resnet32 as cifar_resnet32
from jaxfair.models.cifar_resnet import cifar_resnet56 as cifar_resnet56
from jaxfair.models.linen import linen as linen
from jaxfair.models.mlp import mlp as mlp
from jaxfair.models.nnx import nnx as nnx
from jaxfair.models.resnet import resnet as resnet
from jaxfair.models.resnet import resnet18 as resnet18
from jaxfair.models.resnet import resnet34 as resnet34
from jaxfair.models.resnet import resnet50 as resnet50
from jaxfair.models.resnet import torchvision_names as torchvision_names
from jaxfair.models.small_cnn import small_cnn as small_cnn
from jaxfair.models.vit import vit as vit
from jaxfair.models.vit import vit_tiny as vit_tiny
