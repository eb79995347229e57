"""Which desk a profile names."""

from importlib import import_module

from pipeline.settings import FilesDesk, HelpSteer2Desk, ModelsDesk, OwnDesk, Profile, SimulatedDesk
from resources.desks.desk import AnnotationDesk
from resources.desks.files import DropFolder
from resources.desks.models import ModelPanel
from resources.desks.recorded import RecordedRatings
from resources.desks.simulated import SimulatedAnnotators


def desk_of(profile: Profile) -> AnnotationDesk:
    """The desk that a profile names: a case for each section of the union `Desk`, or the types don't check."""
    match profile.annotations.desk:
        case SimulatedDesk() as desk:
            return SimulatedAnnotators(**desk.model_dump(exclude={"kind"}), seed=profile.seed)
        case FilesDesk(folder=folder):
            return DropFolder(folder=folder)
        case HelpSteer2Desk() as desk:
            return RecordedRatings(**desk.model_dump(exclude={"kind"}))
        case ModelsDesk(panel=members):
            return ModelPanel(panel={name: m.checkpoint for name, m in members.items()}, seed=profile.seed)
        case OwnDesk(kind=kind, settings=values):
            own: AnnotationDesk = import_module(f"resources.desks.{kind}").Desk(**values, seed=profile.seed)
            return own
