"""Which desk a profile names."""

from collections.abc import Mapping
from importlib import import_module

from pydantic import JsonValue, ValidationError

from pipeline.settings import FilesDesk, HelpSteer2Desk, ModelsDesk, OwnDesk, Profile, ProfileError, SimulatedDesk
from pipeline.worker import faults
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
        case FilesDesk() as desk:
            return DropFolder(**desk.model_dump(exclude={"kind"}))
        case HelpSteer2Desk() as desk:
            return RecordedRatings(**desk.model_dump(exclude={"kind"}))
        case ModelsDesk(panel=members):
            return ModelPanel(panel={name: m.checkpoint for name, m in members.items()}, seed=profile.seed)
        case OwnDesk(kind=kind, settings=values):
            return own_desk(import_module(f"resources.desks.{kind}").Desk, values, profile.seed)


def own_desk(desk: type[AnnotationDesk], values: Mapping[str, JsonValue], seed: int) -> AnnotationDesk:
    """A desk of one's own with the values of its fields; `seed`, where it has such a field, is the profile's.

    Raises `ProfileError` for a value that is missing or wrong, and for one that no field takes.
    """
    place, fields = "annotations.desk.settings", [name for name in desk.model_fields if name != "seed"]
    if unknown := sorted(set(values) - set(fields)):
        raise ProfileError(f"{place}.{unknown[0]}: unknown key; allowed here: {', '.join(fields) or 'nothing'}")
    drawn = {"seed": seed} if "seed" in desk.model_fields else {}
    try:
        return desk(**values, **drawn)
    except ValidationError as error:
        raise ProfileError(f"{place}: {faults(error)}") from None
