r"""Rate constraints: shares of people, added, scaled, compared, and handed to the solver as a problem.

With the label y, the prediction p, the positive class c and the groups S::

    positive, coverage   P(p = c  | S)               accuracy    P(p = y  | S)
    true_positive        P(p = c  | y = c, S)        error       P(p != y | S)
    false_negative       P(p != c | y = c, S)        precision   P(y = c  | p = c, S)
    false_positive       P(p = c  | y != c, S)
    true_negative        P(p != c | y != c, S)

Every function takes ``group``, None for everybody, one group, or several whose people are pooled, and those that have a
positive class take ``positive``: with more than two classes, that one against the rest. They return expressions::

    bound = rates.positive(group=0) - rates.positive(group=1) <= 0.02
    problem = rates.problem(model.apply, [bound], num_groups=4, num_classes=2)

How this differs from TFCO (TensorFlow), where constraints are written the same way: a rate knows its groups by number,
not by a context of tensors; which surrogate stands in for it is the problem's choice and not the rate's; sums of rates
are data that can be printed, compared and hashed.

The **families** bound how far groups are apart. ``between="overall"``: each group's rate is within ``slack`` of
everybody's rate, in both directions, 2G constraints; the reductions of fairlearn call this ``difference_bound``.
``between="pairs"``: any two groups are within ``slack`` of each other, G(G-1) constraints; then max - min over groups,
which fairlearn's metrics call a difference, is at most ``slack``. Everybody's rate is a mean of the groups' rates, so
pairs within s of each other are within s of it, and groups within s of it are within 2s of each other.
"""

from jaxfair.constraints.rates._expressions import Constraint as Constraint
from jaxfair.constraints.rates._expressions import Expression as Expression
from jaxfair.constraints.rates._expressions import Rate as Rate
from jaxfair.constraints.rates._expressions import equal as equal
from jaxfair.constraints.rates._families import demographic_parity as demographic_parity
from jaxfair.constraints.rates._families import equal_opportunity as equal_opportunity
from jaxfair.constraints.rates._families import equalized_odds as equalized_odds
from jaxfair.constraints.rates._measure import Measured as Measured
from jaxfair.constraints.rates._measure import measure as measure
from jaxfair.constraints.rates._named import accuracy as accuracy
from jaxfair.constraints.rates._named import coverage as coverage
from jaxfair.constraints.rates._named import error as error
from jaxfair.constraints.rates._named import false_negative as false_negative
from jaxfair.constraints.rates._named import false_positive as false_positive
from jaxfair.constraints.rates._named import positive as positive
from jaxfair.constraints.rates._named import precision as precision
from jaxfair.constraints.rates._named import true_negative as true_negative
from jaxfair.constraints.rates._named import true_positive as true_positive
from jaxfair.constraints.rates._problem import RateAux as RateAux
from jaxfair.constraints.rates._problem import RateCarry as RateCarry
from jaxfair.constraints.rates._problem import RateMemory as RateMemory
from jaxfair.constraints.rates._problem import problem as problem
from jaxfair.constraints.rates.costs import cost_proxy as cost_proxy
from jaxfair.constraints.rates.costs import costs as costs
from jaxfair.constraints.rates.costs import expected as expected
from jaxfair.constraints.rates.costs import influence as influence
from jaxfair.constraints.rates.costs import people as people
