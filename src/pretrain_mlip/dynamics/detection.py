"""Detection of failures: all checks of a run as it goes on, and of a stored trajectory."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pretrain_mlip.dynamics.checks import CHECKS, Snapshot, Start
from pretrain_mlip.dynamics.rdf import radial_distribution, rdf_mae
from pretrain_mlip.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ase import Atoms

    from pretrain_mlip.dynamics.failure import Failure, FailureSettings
    from pretrain_mlip.dynamics.rdf import RDF

logger = logging.getLogger(__name__)


class Checks:
    """All checks of one run, with what they remember: its start, the look before, a window of structures.

    Energy and forces are looked at where a calculator already holds them; nothing is computed. Temperature is looked at
    where the structure has momenta. The first structure that is seen is the start.
    """

    def __init__(
        self,
        settings: FailureSettings,
        *,
        conserved: bool = False,
        ramped: bool = False,
        reference: RDF | None = None,
    ) -> None:
        """Describe the run.

        Args:
            settings: the checks.
            conserved: nothing takes energy from the run, so that its drift is checked.
            ramped: the volume is prescribed, so that it is not checked.
            reference: what ``rdf_deviation`` compares with.

        Raises:
            InputError: there is no such reference, where one is needed.
        """
        if settings.rdf_deviation is not None and reference is None:
            raise InputError("rdf_deviation compares with reference structures, and none are given")
        off = {} if conserved else {"energy_drift": None}
        self.settings = settings.model_copy(update=off | ({"volume_change": None} if ramped else {}))
        self.reference = reference
        self.start: Start | None = None
        self.previous_temperature: float | None = None
        self.window: list[Atoms] = []
        self.window_start = 0.0

    def look(
        self, atoms: Atoms, *, step: int = 0, time_fs: float = 0.0, target_temperature: float | None = None
    ) -> Failure | None:
        """The first failed check of a structure, None where all pass.

        Args:
            atoms: the structure.
            step: of the run, or the number of a frame.
            time_fs: since the start.
            target_temperature: of the thermostat in K, None where there is none.
        """
        if self.start is None:
            self.start, self.window_start = Start.of(atoms, self.settings), time_fs
        now = Snapshot(atoms, step, time_fs, target_temperature, self.previous_temperature, self.start)
        for one in CHECKS:
            failure = one(now, self.settings)
            if failure is not None:
                return failure
        self.previous_temperature = now.temperature
        return self._look_at_window(now)

    def _look_at_window(self, now: Snapshot) -> Failure | None:
        """The radial distribution function of the structures since the last window ended."""
        if self.settings.rdf_deviation is None or self.reference is None:
            return None
        self.window.append(now.atoms.copy())
        if now.time_fs - self.window_start < 1000.0 * self.settings.rdf_window_ps:
            return None
        width = self.reference.r[1] - self.reference.r[0]
        r_max = self.reference.r[-1] + width / 2
        found = radial_distribution(self.window, r_max, len(self.reference.r))
        self.window, self.window_start = [], now.time_fs
        deviation = r_max * rdf_mae(found, self.reference)["total"]
        if deviation <= self.settings.rdf_deviation:
            return None
        return now.failure("rdf", value=deviation, limit=self.settings.rdf_deviation, unit="Å")


def first_failure(
    frames: Iterable[Atoms],
    settings: FailureSettings,
    *,
    frame_interval_fs: float = 1.0,
    target_temperature: float | None = None,
    **run: Any,
) -> Failure | None:
    """The first failure in a stored trajectory.

    Args:
        frames: structures in order of time. ``time_fs`` and ``target_temperature`` in ``frame.info`` (this package's
            own trajectories have them) go before the two arguments below.
        settings: the checks.
        frame_interval_fs: time between frames in fs.
        target_temperature: thermostat temperature in K; None switches the checks that need it off.
        run: what ``Checks`` is to know about the run.
    """
    checks = Checks(settings, **run)
    for index, atoms in enumerate(frames):
        if index == 0 and not atoms.has("momenta"):
            logger.info("the trajectory has no momenta: its temperature is not checked")
        failure = checks.look(
            atoms,
            step=index,
            time_fs=float(atoms.info.get("time_fs", index * frame_interval_fs)),
            target_temperature=atoms.info.get("target_temperature", target_temperature),
        )
        if failure is not None:
            return failure
    return None
