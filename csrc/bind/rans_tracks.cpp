// MixtureTables, TrackDecoder and encode_tracks: the coder of version 2 streams.
#include <algorithm>

#include "bind/rans.h"
#include "tracks/tracks.h"

namespace ckbd_python {
namespace {

constexpr int kMaxTracks = 65535;

std::shared_ptr<ckbd::MixtureTables> make_mixture(const py::object& cdf, const py::object& inverse,
                                                  const py::object& share, const py::object& radius) {
  const auto c = array<const int32_t>("cdf", cdf, {static_cast<py::ssize_t>(ckbd::kCdf)});
  const auto i = array<const int32_t>("inverse", inverse, {ckbd::kScales});
  const auto s = array<const int32_t>("share", share, {ckbd::kScales});
  const auto r = array<const int16_t>("radius", radius, {ckbd::kScales});
  return std::make_shared<ckbd::MixtureTables>(copy_of(c).data(), copy_of(i).data(), copy_of(s).data(),
                                               copy_of(r).data());
}

void check_below(const char* name, const uint8_t* values, size_t n) {
  const auto wrong = std::find_if(values, values + n, [](uint8_t v) { return v >= ckbd::kScales; });
  if (wrong != values + n) refuse(name, "0..63", std::to_string(*wrong) + " at " + std::to_string(wrong - values));
}

void check_symbols(const char* name, const Array<const int16_t>& values, int largest) {
  for (size_t i = 0; i < values.size; ++i) {
    if (values.data[i] < -largest || values.data[i] > largest) {
      refuse(name, "at most " + std::to_string(largest) + " in size",
             std::to_string(values.data[i]) + " at " + std::to_string(i));
    }
  }
}

// The parameters of a call, checked: without mean those of residuals, k (sites, channels); otherwise of mixtures, all
// of (sites, parts, channels).
struct Parameters {
  Array<const uint16_t> track;
  Array<const uint8_t> k, share;
  Array<const int16_t> mean;
  size_t sites, channels;
  int count = 0;  // 0: residuals

  ckbd::Residuals residuals() const { return {k.data}; }
  ckbd::Mixtures mixtures() const { return {mean.data, k.data, share.data, count}; }
  // What was checked must stay as it is.
  void add_to(Memory& memory) const {
    memory.add(track);
    memory.add(k);
    memory.add(mean);
    memory.add(share);
  }
};

Array<const uint16_t> track_array(const py::object& object, size_t tracks) {
  auto track = array<const uint16_t>("track", object, {-1});
  for (size_t i = 0; i < track.size; ++i) {
    const uint16_t one = track.data[i];
    if (one >= tracks) refuse("track", "less than " + std::to_string(tracks), std::to_string(one));
  }
  return track;
}

Parameters parameters(const py::object& track, const py::object& k, const py::object& mean, const py::object& share,
                      size_t tracks) {
  Parameters p;
  p.track = track_array(track, tracks);
  p.sites = p.track.size;
  const auto sites = static_cast<py::ssize_t>(p.sites);
  if (mean.is_none()) {
    if (!share.is_none()) refuse("share", "none without mean", "one");
    p.k = array<const uint8_t>("k", k, {sites, -1});
    p.channels = static_cast<size_t>(p.k.view->shape[1]);
  } else {
    p.k = array<const uint8_t>("k", k, {sites, -1, -1});
    const py::ssize_t parts = p.k.view->shape[1], channels = p.k.view->shape[2];
    p.count = in_range("k parts", parts, 1, ckbd::kMixtures);
    p.channels = static_cast<size_t>(channels);
    p.mean = array<const int16_t>("mean", mean, {sites, parts, channels});
    p.share = array<const uint8_t>("share", share, {sites, parts, channels});
    check_below("share", p.share.data, p.share.size);
    for (size_t i = 0; i < p.mean.size; ++i) {
      if (p.mean.data[i] < -16383 || p.mean.data[i] > 16383) {
        refuse("mean", "-16383..16383", std::to_string(p.mean.data[i]) + " at " + std::to_string(i));
      }
    }
  }
  check_below("k", p.k.data, p.k.size);
  return p;
}

py::tuple encode_tracks(const ckbd::Tables& tables, const ckbd::MixtureTables& mixtures, py::ssize_t tracks,
                        const py::object& z, const py::object& track, const py::object& k, const py::object& y,
                        const py::object& mean, const py::object& share) {
  const auto count = static_cast<size_t>(in_range("tracks", tracks, 1, kMaxTracks));
  const auto z_view = array<const int16_t>("z", z, {-1});
  check_sites("z", z_view.size, tables);
  check_symbols("z", z_view, ckbd::kSymbolMax);
  const Parameters p = parameters(track, k, mean, share, count);
  const auto symbols =
      array<const int16_t>("y", y, {static_cast<py::ssize_t>(p.sites), static_cast<py::ssize_t>(p.channels)});
  check_symbols("y", symbols, ckbd::kSymbolMax);
  ckbd::TrackEncoder encoder(tables, mixtures, count);
  if (p.count == 0) {
    encoder.residuals(p.track.data, p.sites, p.channels, p.residuals(), symbols.data);
  } else {
    encoder.mixture(p.track.data, p.sites, p.channels, p.mixtures(), symbols.data);
  }
  encoder.z(z_view.data, z_view.size);
  const std::vector<uint8_t> out = encoder.finish();
  return py::make_tuple(py::bytes(reinterpret_cast<const char*>(out.data()), out.size()), encoder.bits());
}

// Holds the GIL throughout, so calls cannot meet. After an error nothing more is decoded.
class Decoder {
 public:
  Decoder(const py::object& tables, const py::object& mixtures, const py::object& payload, py::ssize_t tracks)
      : tables_(shared<ckbd::Tables>("tables", tables)),
        mixtures_(shared<ckbd::MixtureTables>("mixtures", mixtures)),
        payload_(bytes("payload", payload)),
        tracks_(static_cast<size_t>(in_range("tracks", tracks, 1, kMaxTracks))),
        decoder_(*tables_, *mixtures_, payload_.data, payload_.size, tracks_) {}

  void z(const py::object& out) {
    const auto view = array<int16_t>("out", out, {-1}, true);
    check_sites("out", view.size, *tables_);
    Memory memory;
    memory.add(view);
    memory.add(payload_);
    memory.check("out");
    attempt([&] { decoder_.z(view.data, view.size); });
  }

  void step(const py::object& track, const py::object& k, const py::object& out, const py::object& mean,
            const py::object& share) {
    const Parameters p = parameters(track, k, mean, share, tracks_);
    const auto view = array<int16_t>(
        "out", out, {static_cast<py::ssize_t>(p.sites), static_cast<py::ssize_t>(p.channels)}, true);
    Memory memory;
    memory.add(view);
    memory.add(payload_);
    p.add_to(memory);
    memory.check("out");
    attempt([&] {
      if (p.count == 0) {
        decoder_.residuals(p.track.data, p.sites, p.channels, p.residuals(), view.data);
      } else {
        decoder_.mixture(p.track.data, p.sites, p.channels, p.mixtures(), view.data);
      }
    });
  }

  void finish() {
    attempt([&] { decoder_.finish(); });
  }

 private:
  template <class Work>
  void attempt(Work work) {
    if (over_) throw std::runtime_error("TrackDecoder: expected no call after one that failed, got one");
    over_ = true;
    work();
    over_ = false;
  }

  const std::shared_ptr<ckbd::Tables> tables_;
  const std::shared_ptr<ckbd::MixtureTables> mixtures_;
  const Array<const uint8_t> payload_;
  const size_t tracks_;
  ckbd::TrackDecoder decoder_;
  bool over_ = false;
};

}  // namespace

void bind_tracks(py::module_& m) {
  Class<ckbd::MixtureTables, std::shared_ptr<ckbd::MixtureTables>>(m, "MixtureTables")
      .init_by(&make_mixture, py::arg("cdf"), py::arg("inverse"), py::arg("share"), py::arg("radius"));
  m.def("encode_tracks", &encode_tracks, py::arg("tables"), py::arg("mixtures"), py::arg("tracks"), py::arg("z"),
        py::arg("track"), py::arg("k"), py::arg("y"), py::kw_only(), py::arg("mean") = py::none(),
        py::arg("share") = py::none());
  Class<Decoder>(m, "TrackDecoder")
      .init<const py::object&, const py::object&, const py::object&, py::ssize_t>(
          py::arg("tables"), py::arg("mixtures"), py::arg("payload"), py::arg("tracks"))
      .def("z", &Decoder::z, py::arg("out"))
      .def("step", &Decoder::step, py::arg("track"), py::arg("k"), py::arg("out"), py::kw_only(),
           py::arg("mean") = py::none(), py::arg("share") = py::none())
      .def("finish", &Decoder::finish);
}

}  // namespace ckbd_python
