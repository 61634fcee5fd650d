// What the two libraries of the plugin have in common: plain C, so that neither sees the other's headers.
//
// The pair style is compiled against LAMMPS, the backend against torch. The pair style loads the backend with
// RTLD_DEEPBIND: LAMMPS exports a slow reference dgemm_ that would replace torch's own otherwise.
#pragma once

#include <cstdint>

extern "C" {

// Features of atoms (rows of `width` numbers each) on their way from owners to ghosts, or back: see compute().
typedef void (*pretrain_mlip_exchange)(void *context, double *rows, int width, int to_owners);

struct pretrain_mlip_info {
  double cutoff;         // Å
  int exchange_width;    // largest width of an exchange; 0 if there is none
  const char *elements;  // separated by blanks, in the order of the types; valid as long as the model
};

struct pretrain_mlip_input {
  int64_t atoms;       // rows, ghosts included
  int64_t own;         // those whose energies count; they come first
  int64_t edges;
  int64_t *types;      // (atoms)
  int64_t *neighbour;  // (edges)
  int64_t *centre;     // (edges)
  double *vectors;     // (edges, 3) Å, from the centre to the neighbour
  pretrain_mlip_exchange exchange;  // null where there are no ghosts
  void *context;       // for exchange
};

struct pretrain_mlip_output {
  const double *energies;  // (atoms) eV; valid until the next call
  const double *gradient;  // (edges, 3) dE/d vectors, eV/Å; likewise
};

struct pretrain_mlip_backend {
  // Each returns null or a message; the message is valid until the next call.
  const char *(*load)(const char *file, const char *device, void **model, pretrain_mlip_info *info);
  const char *(*evaluate)(void *model, const pretrain_mlip_input *input, pretrain_mlip_output *output);
  void (*unload)(void *model);
  void (*set_threads)(int threads);
};

// The only symbol of the backend.
typedef const pretrain_mlip_backend *(*pretrain_mlip_backend_function)();
}
