"""Phonons by phonopy: bands, density of states, imaginary modes, thermal properties."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from ase import Atoms

from pretrain_mlip import console
from pretrain_mlip.errors import ComputationError, InputError
from pretrain_mlip.validation.properties.relaxation import check_crystal, relax, repetitions

IMAGINARY = -0.05  # THz: below, a mode is unstable and not rounding
POINTS = 51  # of a path between two points of high symmetry


def phonons(
    atoms: Atoms,
    calculator: Any,
    *,
    length: float = 12.0,
    displacement: float = 0.01,
    mesh: float = 60.0,
    relaxed: bool = True,
    temperature: float = 1000.0,
) -> dict[str, Any]:
    """Phonons of a crystal from forces on displaced atoms in a supercell. No sum rule is imposed.

    Args:
        atoms: the crystal.
        calculator: any ASE calculator, in float64.
        length: Å, least width of the supercell.
        displacement: of atoms, in Å.
        mesh: Å, length that the mesh of q points of the density of states stands for.
        relaxed: relax positions and cell first, with their symmetry.
        temperature: up to which thermal properties are given, in K.

    Returns:
        ``bands``: for each piece of the path through the zone (seekpath's) its ``labels``, ``distances`` and
        ``frequencies`` (points, modes) in THz, imaginary ones negative; ``dos`` with ``frequencies`` and ``density``
        (modes per THz and primitive cell); ``thermal`` with ``temperatures`` (K), ``free_energy`` (kJ/mol),
        ``entropy`` and ``heat_capacity`` (J/K/mol) of a primitive cell, None where modes are imaginary;
        ``acoustic_at_gamma``, the largest of the three frequencies that have to be zero; ``lowest`` frequency on
        the path and the mesh; ``imaginary``, whether it is below -0.05 THz and below what acoustic modes are off zero
        by; ``supercell``,
        ``displacements``, their number, and ``space_group``.

    Raises:
        InputError: no crystal, or phonopy and seekpath are not installed.
        ComputationError: the relaxation fails, or forces are not finite.
    """
    library = find_phonopy()
    check_crystal(atoms)
    crystal = relax(atoms, calculator, cell=True, keep_symmetry=True, fmax=1e-4) if relaxed else atoms
    matrix = np.diag(repetitions(crystal, length))
    cell = library.PhonopyAtoms(
        symbols=list(crystal.symbols), cell=crystal.cell.array, scaled_positions=crystal.get_scaled_positions()
    )
    found = library.Phonopy(cell, supercell_matrix=matrix, primitive_matrix="auto", symprec=1e-4)
    found.generate_displacements(distance=displacement)
    displaced = found.supercells_with_displacements
    found.forces = [_forces(one, calculator) for one in console.track(displaced, "displaced structures")]
    found.produce_force_constants(show_drift=False)
    acoustic = sorted(found.run_qpoints([[0.0, 0.0, 0.0]]).frequencies[0], key=abs)[:3]
    bands = _bands(found, library)
    frequencies = found.run_mesh(mesh).frequencies
    dos = found.run_total_dos()
    lowest = float(min(frequencies.min(), *(np.min(band["frequencies"]) for band in bands)))
    imaginary = lowest < min(IMAGINARY, -1.5 * float(np.max(np.abs(acoustic))))
    return {
        "bands": bands,
        "dos": {
            "frequencies": np.asarray(dos.frequency_points).tolist(),
            "density": np.asarray(dos.dos).tolist(),
        },
        "thermal": None if imaginary else _thermal(found, temperature),
        "acoustic_at_gamma": float(np.max(np.abs(acoustic))),
        "lowest": lowest,
        "imaginary": bool(imaginary),
        "supercell": np.diag(matrix).tolist(),
        "displacements": len(displaced),
        "space_group": found.symmetry.get_international_table(),
    }


def _forces(supercell: Any, calculator: Any) -> np.ndarray:
    atoms = Atoms(supercell.symbols, cell=supercell.cell, scaled_positions=supercell.scaled_positions, pbc=True)
    atoms.calc = calculator
    forces = atoms.get_forces()
    if not np.isfinite(forces).all():
        raise ComputationError("phonons: forces on displaced atoms are not finite")
    return forces


def _bands(found: Any, library: Any) -> list[dict[str, Any]]:
    paths, labels, connections = library.get_band_qpoints_by_seekpath(found.primitive, POINTS)
    content = found.run_band_structure(paths, path_connections=connections, labels=labels)
    ends = iter(labels)
    bands, first = [], next(ends)
    for distances, frequencies, connected in zip(content.distances, content.frequencies, connections, strict=True):
        last = next(ends)
        bands.append(
            {
                "labels": [_plain(first), _plain(last)],
                "distances": np.asarray(distances).tolist(),
                "frequencies": np.asarray(frequencies).tolist(),
            }
        )
        first = last if connected else next(ends, "")
    return bands


def _plain(label: str) -> str:
    return label.replace("$", "").replace("\\Gamma", "Γ").replace("\\mathrm", "").strip("{}").replace("GAMMA", "Γ")


def _thermal(found: Any, temperature: float) -> dict[str, list[float]]:
    content = found.run_thermal_properties(t_min=0, t_max=temperature, t_step=temperature / 50, cutoff_frequency=1e-3)
    names = ("temperatures", "free_energy", "entropy", "heat_capacity")
    return {name: np.asarray(getattr(content, name)).tolist() for name in names}


def find_phonopy() -> Any:
    """What is used of phonopy.

    Raises:
        InputError: it is not installed, or seekpath is not.
    """
    try:
        import seekpath  # noqa: F401  # phonopy loads it late
        from phonopy import Phonopy
        from phonopy.phonon.band_structure import get_band_qpoints_by_seekpath
        from phonopy.structure.atoms import PhonopyAtoms
    except ModuleNotFoundError as error:
        raise InputError(
            f"phonons need {error.name}, which is not installed: pip install 'pretrain-mlip[properties]'"
        ) from None
    return SimpleNamespace(
        Phonopy=Phonopy, PhonopyAtoms=PhonopyAtoms, get_band_qpoints_by_seekpath=get_band_qpoints_by_seekpath
    )
