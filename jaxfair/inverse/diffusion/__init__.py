r"""Reward-directed conditional diffusion: designs with a reward that is asked for, which stay where the data are.

There are many examples without a label, and few with one: a noisy reward, or which of two is preferred. Wanted are new
examples x whose reward is near a target a. Four steps, each a pure function of arrays:

1. a reward from the few: `reward_from_values` (ridge), `reward_from_preferences` (logistic regression on differences);
2. pseudo-labels for the many, :math:`\hat y = \hat f(x) + \nu \xi`: `pseudo_labels`. Without noise (:math:`\nu = 0`)
   the law of x given :math:`\hat y` is singular;
3. a denoiser that knows the label, trained on all of them: `fit`, or step by step by the Solver `solver`. Its form may
   know that data lie near a subspace: `encoder_decoder`, or not: `plain`. It is any ``apply(params, x, y, t)``;
4. designs, by going back from noise under the label a: `sample`.

Where data are Gaussian all of it has a closed form, `gaussian`: an oracle, and a peer that needs no network. How well
designs keep to the subspace is measured by `off_support` and `subspace_distance`.

=====================  ==============================================  =================================
paper                  here                                            function
=====================  ==============================================  =================================
:math:`\alpha(t)`      :math:`e^{-t/2}`, the share of x left           `levels`
:math:`h(t)`           :math:`1 - e^{-t}`, the variance of noise       `levels`
:math:`\hat\theta`     the reward's direction, ``[D]``                 `reward_from_values`
:math:`s(x, y, t)`     the score, by ``(alpha * x0 - x) / h``          `score`
:math:`V`              ``params["basis"]``, ``[D, d]``                 `encoder_decoder`
=====================  ==============================================  =================================

How this differs from the authors' code: that guides Stable Diffusion by a classifier's gradient, which is no
conditional score; this is the simulation's method. The network predicts the clean x, not the noise, whose error the
first steps back would multiply a thousandfold; times are spaced evenly in their logarithm; the last step returns the
clean x, so that no noise of the first time is left on it.

References:
  Yuan, Huang, Ni, Chen and Wang, `Reward-directed conditional diffusion <https://arxiv.org/abs/2307.07055>`_, NeurIPS
  2023. Li et al., `Diffusion model for data-driven black-box optimization <https://arxiv.org/abs/2403.13219>`_, 2024.
"""

from jaxfair.inverse.diffusion.denoisers import Denoiser as Denoiser
from jaxfair.inverse.diffusion.denoisers import encoder_decoder as encoder_decoder
from jaxfair.inverse.diffusion.denoisers import plain as plain
from jaxfair.inverse.diffusion.denoising import DenoisingInfo as DenoisingInfo
from jaxfair.inverse.diffusion.denoising import DenoisingState as DenoisingState
from jaxfair.inverse.diffusion.denoising import Fitted as Fitted
from jaxfair.inverse.diffusion.denoising import denoising_loss as denoising_loss
from jaxfair.inverse.diffusion.denoising import fit as fit
from jaxfair.inverse.diffusion.denoising import solver as solver
from jaxfair.inverse.diffusion.fidelity import off_support as off_support
from jaxfair.inverse.diffusion.fidelity import subspace_distance as subspace_distance
from jaxfair.inverse.diffusion.gaussian import Gaussian as Gaussian
from jaxfair.inverse.diffusion.gaussian import gaussian as gaussian
from jaxfair.inverse.diffusion.rewards import pseudo_labels as pseudo_labels
from jaxfair.inverse.diffusion.rewards import reward_from_preferences as reward_from_preferences
from jaxfair.inverse.diffusion.rewards import reward_from_values as reward_from_values
from jaxfair.inverse.diffusion.sampling import Samples as Samples
from jaxfair.inverse.diffusion.sampling import levels as levels
from jaxfair.inverse.diffusion.sampling import sample as sample
from jaxfair.inverse.diffusion.sampling import score as score
