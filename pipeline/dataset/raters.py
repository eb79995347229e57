"""Who gave the ratings of the published data set, and so those that a recipe learns from."""

from dataclasses import dataclass

import pyarrow.compute as pc

from pipeline.annotations.schema import said_of_all
from pipeline.settings import Profile
from pipeline.store import Store
from pipeline.vocabulary import RatedBy


@dataclass(frozen=True)
class Raters:
    """Who rated, and the note that goes with it wherever figures are shown; "" where people rated."""

    by: RatedBy
    note: str

    @property
    def said(self) -> str:
        """The note, or who rated where there is none."""
        return self.note or self.by


def raters_of(store: Store, profile: Profile, recipe: str) -> Raters:
    """Who gave the ratings that a recipe learns from: by the data set's rows, not by the desk that there is now."""
    collected = profile.rated_by
    if store.manifest("helpsteer_dataset"):
        rows = store.read("helpsteer_dataset", columns=["rated_by"])
        # a row that doesn't say is of the profile's desk
        collected = said_of_all({by or profile.rated_by for by in pc.unique(rows["rated_by"]).to_pylist()})
    return Raters(profile.rated_by_of(recipe, collected), profile.ratings_note_of(recipe, collected))
