// Pair style for potentials that 'pretrain-mlip export' wrote: energies, forces and virials from exported code.
#pragma once

#include "backend.h"
#include "pair.h"

#include <vector>

namespace LAMMPS_NS {

class PairPretrainMLIP : public Pair {
 public:
  PairPretrainMLIP(class LAMMPS *);
  ~PairPretrainMLIP() override;
  void settings(int, char **) override;
  void coeff(int, char **) override;
  void init_style() override;
  double init_one(int, int) override;
  void compute(int, int) override;
  double memory_usage() override;

  int pack_forward_comm(int, int *, double *, int, int *) override;
  void unpack_forward_comm(int, int, double *) override;
  int pack_reverse_comm(int, int, double *) override;
  void unpack_reverse_comm(int, int *, double *) override;

 private:
  const pretrain_mlip_backend *backend;
  void *model;
  pretrain_mlip_info info;
  std::string device;
  int threads;  // 0 as LAMMPS has it

  // Rows of atoms in the tensors: own atoms first, in their order, then atoms of other processes, once each, whatever
  // the number of their images; -1 for atoms that the potential does not know
  std::vector<int> row;
  int64_t own, rows;
  std::vector<int> kind;  // atom type -> type of the potential, or -1
  std::vector<int64_t> types, neighbour, centre;
  std::vector<double> vectors;
  std::vector<int> pairs;  // the same edges, as atoms of LAMMPS: centre, neighbour

  double *features;  // during an exchange
  int width;

  void allocate();
  void load_backend();
  void check_masses();
  void assign_rows();
  void list_edges();
  void fill_up();
  void tally(const pretrain_mlip_output &);
  bool represents(int) const;
  static void exchange(void *, double *, int, int);
};

}  // namespace LAMMPS_NS
