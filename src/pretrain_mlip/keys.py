"""Names of everything that is stored in a graph, a label or a prediction, with shapes and units.

N atoms, E edges and B structures in a batch. Units: eV, Å, eV/Å³, fs, K, amu. Cells are rows. Stress has ASE's sign
(positive = tension) and, as a vector, ASE's Voigt order xx yy zz yz xz xy; virial = -volume * stress.
"""

# Inputs
ATOMIC_NUMBERS = "atomic_numbers"  # (N,) int64
POSITIONS = "positions"  # (N, 3) Å
CELL = "cell"  # (B, 3, 3) Å, rows; zero rows where there is no lattice vector
PBC = "pbc"  # (B, 3) bool
EDGE_INDEX = "edge_index"  # (2, E) int64, row 0 = neighbour j (source), row 1 = centre i (target)
CELL_SHIFTS = "cell_shifts"  # (E, 3) integers, edge vector = r_j + shift @ cell - r_i
HALF_LIST = "half_list"  # (B,) bool, there where every pair is one edge and not two
EDGE_VECTORS = "edge_vectors"  # (E, 3) Å
BATCH = "batch"  # (N,) int64, index of the structure that an atom belongs to
VOLUME = "volume"  # (B,) Å³, nan where the cell is not three-dimensional

# Labels and predictions
ENERGY = "energy"  # (B,) eV
ENERGIES = "energies"  # (N,) eV
FORCES = "forces"  # (N, 3) eV/Å
STRESS = "stress"  # (B, 6) eV/Å³, Voigt xx yy zz yz xz xy, nan where the cell is not three-dimensional
ENERGY_STD = "energy_std"  # (B,) eV, of the members of an ensemble
FORCES_STD = "forces_std"  # (N, 3) eV/Å, likewise

# Per-structure information
CONFIG_TYPE = "config_type"  # str, where a structure comes from
CONFIG_WEIGHT = "config_weight"  # float, weight of a structure in every loss
SPLIT = "split"  # "train", "val" or "test"
PARENT = "parent"  # str, the structure that a perturbed copy came from
STRUCTURE_ID = "structure_id"  # str, a name for messages

LABELS = (ENERGY, FORCES, STRESS)
SPLITS = ("train", "val", "test")
ISOLATED_ATOM = "IsolatedAtom"  # the config_type that gives a reference energy
EV_PER_A3_IN_GPA = 160.21766208
