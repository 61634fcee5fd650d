// The torch side of the plugin: loads exported files and runs them.
#include "backend.h"

#include <ATen/Parallel.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/library.h>
#include <torch/script.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

const std::string PREFIX = "pretrain_mlip_";
const std::string FORMAT_VERSION = "1";

std::string message;  // of the last error

// Without the stack of calls that torch adds
const char *words_of(const std::exception &error)
{
  const auto *of_torch = dynamic_cast<const c10::Error *>(&error);
  message = of_torch ? of_torch->what_without_backtrace() : error.what();
  return message.c_str();
}

// ---- operators through which exported code asks for features of ghosts ----

struct Exchange {
  pretrain_mlip_exchange function = nullptr;
  void *context = nullptr;
};
Exchange current;  // during a call

at::Tensor exchanged(const at::Tensor &features, int to_owners)
{
  if (!current.function) return features.clone();
  at::Tensor rows = features.to(at::TensorOptions(at::kCPU).dtype(at::kDouble), false, true).contiguous();
  current.function(current.context, rows.data_ptr<double>(), static_cast<int>(rows.size(1)), to_owners);
  return rows.to(features.options());
}

at::Tensor from_owners(const at::Tensor &features) { return exchanged(features, 0); }
at::Tensor to_owners(const at::Tensor &features) { return exchanged(features, 1); }

// Sums in code that was compiled for several threads
at::Tensor add_rows(const at::Tensor &total, const at::Tensor &index, const at::Tensor &values)
{
  return total.index_add(0, index, values);
}

// Python may have made the operators known before, if it runs in this process; its own is what remains without us
torch::Library register_operators()
{
  torch::Library library(torch::Library::FRAGMENT, "pretrain_mlip", std::nullopt, __FILE__, __LINE__);
  auto &dispatcher = c10::Dispatcher::singleton();
  for (std::string schema : {"from_owners(Tensor features) -> Tensor", "to_owners(Tensor features) -> Tensor",
                             "add_rows(Tensor total, Tensor index, Tensor values) -> Tensor"})
    if (!dispatcher.findSchema({"pretrain_mlip::" + schema.substr(0, schema.find('(')), ""}))
      library.def(schema.c_str());
  for (auto key : {c10::DispatchKey::CPU, c10::DispatchKey::CUDA}) {
    library.impl("from_owners", torch::dispatch(key, TORCH_FN(from_owners)));
    library.impl("to_owners", torch::dispatch(key, TORCH_FN(to_owners)));
    library.impl("add_rows", torch::dispatch(key, TORCH_FN(add_rows)));
  }
  return library;
}

// The allocator of Linux gives large tensors back to the system, which clears every page anew for the next ones: calls
// of M3GNet on 192 atoms took half as much time again. A simulation needs the same memory at every step.
void keep_memory()
{
#ifdef __GLIBC__
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);
  mallopt(M_TOP_PAD, 64 << 20);
#endif
}

// ---- models ----

using Texts = std::unordered_map<std::string, std::string>;

struct Model {
  std::unique_ptr<torch::jit::Module> script;
  std::unique_ptr<torch::inductor::AOTIModelPackageLoader> package;
  torch::Device device = torch::kCPU;
  std::string elements;
  at::Tensor energies, gradient;  // of the last call
};

bool ends_with(const std::string &text, const std::string &end)
{
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

const std::string &text_of(const Texts &texts, const std::string &name)
{
  auto found = texts.find(PREFIX + name);
  if (found == texts.end() || found->second.empty())
    throw std::runtime_error("not a file that 'pretrain-mlip export' wrote as torchscript or pt2, which are made with "
                             "'pretrain-mlip export CHECKPOINT --format pt2 -o NAME.pt2'");
  return found->second;
}

Texts open(Model &model, const std::string &file)
{
  Texts texts;
  if (ends_with(file, ".pt2")) {
    // Before its code is loaded, which another version of torch may run, and wrongly
    texts = torch::inductor::AOTIModelPackageLoader::load_metadata_from_package(file, "model");
    const auto &torch_version = text_of(texts, "torch");
    if (torch_version != PRETRAIN_MLIP_TORCH)
      throw std::runtime_error("made with torch " + torch_version + ", and this is " + PRETRAIN_MLIP_TORCH +
                               "; export it again");
    auto index = model.device.is_cuda() ? model.device.index() : c10::DeviceIndex(-1);
    model.package = std::make_unique<torch::inductor::AOTIModelPackageLoader>(file, "model", false, 1, index);
    return texts;
  }
  for (const char *name : {"format_version", "elements", "cutoff", "exchange_width"}) texts[PREFIX + name] = "";
  auto script = torch::jit::load(file, model.device, texts);
  script.eval();
  model.script = std::make_unique<torch::jit::Module>(std::move(script));
  return texts;
}

const char *load(const char *file, const char *device, void **result, pretrain_mlip_info *info)
{
  try {
    auto model = std::make_unique<Model>();
    model->device = torch::Device(device);
    const Texts texts = open(*model, file);
    const auto &version = text_of(texts, "format_version");
    if (version != FORMAT_VERSION)
      throw std::runtime_error("format version " + version + ", this pair style reads " + FORMAT_VERSION +
                               "; export it anew");
    model->elements = text_of(texts, "elements");
    info->cutoff = std::stod(text_of(texts, "cutoff"));
    info->exchange_width = std::stoi(text_of(texts, "exchange_width"));
    info->elements = model->elements.c_str();
    *result = model.release();
    return nullptr;
  } catch (const std::exception &error) {
    return words_of(error);
  }
}

std::vector<at::Tensor> run(Model &model, const std::vector<at::Tensor> &inputs)
{
  if (model.package) return model.package->run(inputs);
  std::vector<c10::IValue> values(inputs.begin(), inputs.end());
  const auto outputs = model.script->forward(values).toTuple();
  return {outputs->elements()[0].toTensor(), outputs->elements()[1].toTensor()};
}

const char *evaluate(void *pointer, const pretrain_mlip_input *input, pretrain_mlip_output *output)
{
  auto &model = *static_cast<Model *>(pointer);
  try {
    c10::InferenceMode guard;
    const auto integers = at::TensorOptions().dtype(at::kLong), reals = at::TensorOptions().dtype(at::kDouble);
    const auto neighbour = at::from_blob(input->neighbour, {input->edges}, integers);
    const auto centre = at::from_blob(input->centre, {input->edges}, integers);
    std::vector<at::Tensor> inputs = {
        at::from_blob(input->types, {input->atoms}, integers), at::stack({neighbour, centre}),
        at::from_blob(input->vectors, {input->edges, 3}, reals), at::scalar_tensor(input->own, integers)};
    if (!model.device.is_cpu())
      for (auto &tensor : inputs) tensor = tensor.to(model.device);
    current = {input->exchange, input->context};
    auto outputs = run(model, inputs);
    current = {};
    model.energies = outputs[0].to(at::TensorOptions(at::kCPU).dtype(at::kDouble)).contiguous();
    model.gradient = outputs[1].to(at::TensorOptions(at::kCPU).dtype(at::kDouble)).contiguous();
    *output = {model.energies.data_ptr<double>(), model.gradient.data_ptr<double>()};
    return nullptr;
  } catch (const std::exception &error) {
    current = {};
    return words_of(error);
  }
}

void unload(void *model) { delete static_cast<Model *>(model); }
void set_threads(int threads) { at::set_num_threads(threads); }

const pretrain_mlip_backend BACKEND = {load, evaluate, unload, set_threads};

}  // namespace

extern "C" __attribute__((visibility("default"))) const pretrain_mlip_backend *pretrain_mlip_get_backend()
{
  static const torch::Library operators = register_operators();
  keep_memory();
  return &BACKEND;
}
