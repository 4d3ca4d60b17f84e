// Registers every op once per process.
#include "shell.h"

namespace sv {

void register_weights();
void register_packed_file();
void register_linear();
void register_rows();
void register_attention();
void register_kv_cache();
void register_decoder_layer();
void register_delta();
void register_vision_block();
void register_int4();
void register_sample();
void register_quantize();

void register_all_ops() {
  static const bool once = [] {
    register_weights();
    register_packed_file();
    register_linear();
    register_rows();
    register_attention();
    register_kv_cache();
    register_decoder_layer();
    register_delta();
    register_vision_block();
    register_int4();
    register_sample();
    register_quantize();
    return true;
  }();
  (void)once;
}

}  // namespace sv
