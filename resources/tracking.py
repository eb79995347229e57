"""Where the curves of a training go."""

from pathlib import Path

import dagster as dg

from pipeline.settings import Profile


class TensorBoard(dg.ConfigurableResource["TensorBoard"]):
    """Folder of TensorBoard's event files, with one folder for each training. `tensorboard --logdir FOLDER` shows them live."""

    folder: str | None = None

    def place(self, recipe: str, run: str) -> str | None:
        """Folder of one training; None where nothing is tracked."""
        return str(Path(self.folder) / recipe / run) if self.folder else None


def tracking_of(profile: Profile) -> TensorBoard:
    """What a profile names: a folder, else one in the store; with a store elsewhere than in a local folder, nothing."""
    local = None if "://" in profile.store else str(Path(profile.store) / ".tracking")
    return TensorBoard(folder=profile.tracking.folder or local)
