"""What compression did to each group: from predictions, or networks, to verdicts, people and a page."""

from jaxfair.audit._answer import Answer as Answer
from jaxfair.audit._exemplars import Exemplar as Exemplar
from jaxfair.audit._findings import Findings as Findings
from jaxfair.audit._findings import People as People
from jaxfair.audit._findings import Variant as Variant
from jaxfair.audit._groups import group_frame as group_frame
from jaxfair.audit._groups import group_table as group_table
from jaxfair.audit._looked_at import seen as seen
from jaxfair.audit._verdicts import say_verdicts as say_verdicts
from jaxfair.audit.compare import Comparison as Comparison
from jaxfair.audit.compare import compare as compare
from jaxfair.audit.predicted import Predicted as Predicted
from jaxfair.audit.predicted import predicted as predicted
