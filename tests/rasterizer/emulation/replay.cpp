// Replays recorded launches (recording.py) against the emulation: for sanitizers, which cannot live in a plain Python.
//   replay IN OUT ORDER SEED [FILE LINE]
// IN:  8 bytes "RZLAUNCH", int64 launches; of each: int64 stage, int64 buffers, the params with the pointers replaced
//      by 1 + the number of a buffer (0: null), then of each buffer int64 bytes and its contents.
// OUT: the contents of all buffers of all launches afterwards, one after the other.
// FILE LINE: a barrier to leave out.
// Ends with 0, with 1 and a line of text when a launch fails, or as the sanitizer likes.
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <memory>
#include <vector>

#include "cuda/launch.h"

extern "C" int rz_emulation_set_order(int kind, uint64_t seed);
extern "C" void rz_emulation_skip_barriers(const char* file, uint32_t line);

namespace {

// Exactly as long as the recorded one, so that one past its end is seen.
struct Buffer {
    int64_t bytes;
    std::unique_ptr<unsigned char[]> data;
};

[[noreturn]] void stop(const char* what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

void read(FILE* file, void* to, size_t bytes) {
    if (bytes != 0 && fread(to, bytes, 1, file) != 1) stop("the recording is cut short");
}

int64_t read_number(FILE* file) {
    int64_t value;
    read(file, &value, sizeof(value));
    return value;
}

// Every field from `means` to the end is a pointer.
void point(RzCudaParams& params, const std::vector<Buffer>& buffers) {
    auto* bytes = reinterpret_cast<unsigned char*>(&params);
    for (size_t at = offsetof(RzCudaParams, means); at < sizeof(params); at += sizeof(uint64_t)) {
        uint64_t number;
        memcpy(&number, bytes + at, sizeof(number));
        if (number > buffers.size()) stop("the recording names a buffer that it does not hold");
        void* pointer = number == 0 ? nullptr : buffers[number - 1].data.get();
        memcpy(bytes + at, &pointer, sizeof(pointer));
    }
}

void replay_launch(FILE* in, FILE* out, void* module) {
    const int64_t stage = read_number(in);
    std::vector<Buffer> buffers(size_t(read_number(in)));
    RzCudaParams params;
    read(in, &params, sizeof(params));
    for (Buffer& buffer : buffers) {
        buffer.bytes = read_number(in);
        buffer.data.reset(new unsigned char[size_t(buffer.bytes)]);
        read(in, buffer.data.get(), size_t(buffer.bytes));
    }
    point(params, buffers);
    char message[1024] = "";
    if (rz_cuda_launch(module, int(stage), &params, nullptr, message, sizeof(message)) != RZ_CUDA_OK) stop(message);
    for (const Buffer& buffer : buffers) fwrite(buffer.data.get(), 1, size_t(buffer.bytes), out);
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 5 && count != 7) stop("replay IN OUT ORDER SEED [FILE LINE]");
    FILE* in = fopen(arguments[1], "rb");
    FILE* out = fopen(arguments[2], "wb");
    if (in == nullptr || out == nullptr) stop("a file cannot be opened");
    char magic[8];
    read(in, magic, sizeof(magic));
    if (memcmp(magic, "RZLAUNCH", sizeof(magic)) != 0) stop("not a recording");
    const uint64_t seed = strtoull(arguments[4], nullptr, 10);
    if (rz_emulation_set_order(atoi(arguments[3]), seed) != RZ_CUDA_OK) stop("bad order");
    if (count == 7) rz_emulation_skip_barriers(arguments[5], uint32_t(atoi(arguments[6])));
    void* module = nullptr;
    if (rz_cuda_load(nullptr, 0, &module, nullptr, 0) != RZ_CUDA_OK) stop("cannot load");
    for (int64_t left = read_number(in); left > 0; --left) replay_launch(in, out, module);
    fclose(in);
    if (fclose(out) != 0) stop("the results cannot be written");
    return 0;
}
