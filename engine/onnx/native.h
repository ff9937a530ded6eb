// The part of ONNX Runtime's C API that the Go binding does not reach: tensors of every type,
// rank and size, absent values, dimension names, and a whole run in one call from Go.
//
// The API is a table of function pointers that only ever grows: a function's place in it never
// changes. native.c names the places it uses; native_test.go holds them against the published
// header.
#ifndef ZARPA_NATIVE_H
#define ZARPA_NATIVE_H

#include <stddef.h>
#include <stdint.h>

// One library in this process.
typedef struct {
	void *handle;
	const void *const *api; // the table of function pointers
	const char *version;
	void *memory;    // describes plain CPU memory
	void *allocator; // the default one
} zarpa_library;

// One value on its way in or out.
typedef struct {
	void *value;         // the native value
	void *data;          // a tensor's elements; NULL for strings
	const int64_t *dims; // a tensor's shape, inside the value when it came out
	size_t rank;
	size_t size;  // in: bytes of data; out: items of a sequence or map
	int32_t kind; // enum ONNXType; 0 for an absent value
	int32_t type; // enum ONNXTensorElementDataType
} zarpa_value;

// The C side of one run. Everything it points to outlives the call.
typedef struct {
	void *session;
	void *options;
	const char **input_names;
	zarpa_value *inputs;
	size_t input_count;
	const char **output_names;
	zarpa_value *outputs;
	size_t output_count;
	void **values; // room for input_count + output_count native values
} zarpa_call;

// Functions that return void* return a native status: NULL, or what zarpa_status_* reads and
// zarpa_status_release frees.
const char *zarpa_status_text(const zarpa_library *lib, void *status);
int zarpa_status_code(const zarpa_library *lib, void *status);
void zarpa_status_release(const zarpa_library *lib, void *status);

// zarpa_open opens the library at path: 0, or 1 when it does not open, 2 when it is another
// library, 3 when it is too old. The text of dlerror goes to error.
int zarpa_open(const char *path, zarpa_library *lib, char *error, size_t error_size);
void zarpa_close(zarpa_library *lib);
// zarpa_prepare makes what runs need; the environment exists by then.
void *zarpa_prepare(zarpa_library *lib);

void *zarpa_run(const zarpa_library *lib, zarpa_call *call);

// A runner is a thread that does zarpa_run for one call at a time, and writes a byte to fd at the
// end of each. NULL is no thread to be had.
typedef struct zarpa_runner zarpa_runner;
zarpa_runner *zarpa_runner_start(int fd);
void zarpa_runner_submit(zarpa_runner *r, const zarpa_library *lib, zarpa_call *call);
// zarpa_runner_wait is what zarpa_run returned; it waits for the end.
void *zarpa_runner_wait(zarpa_runner *r);
void zarpa_runner_stop(zarpa_runner *r);

void *zarpa_items(const zarpa_library *lib, void *value, size_t n, zarpa_value *items);
void zarpa_release(const zarpa_library *lib, zarpa_value *values, size_t n);

void *zarpa_tensor(const zarpa_library *lib, zarpa_value *in);
void *zarpa_strings(const zarpa_library *lib, zarpa_value *in, const char *bytes, const int64_t *lengths);
void *zarpa_container(const zarpa_library *lib, zarpa_value *in, zarpa_value *items, size_t n);
void *zarpa_string_size(const zarpa_library *lib, void *value, size_t *size);
void *zarpa_string_content(const zarpa_library *lib, void *value, char *bytes, size_t size, size_t *offsets, size_t n);

void *zarpa_run_options(const zarpa_library *lib, void **options);
void zarpa_run_options_release(const zarpa_library *lib, void *options);
void *zarpa_terminate(const zarpa_library *lib, void *options);
void *zarpa_unterminate(const zarpa_library *lib, void *options);

// Which names and types of a session to read.
enum { ZARPA_INPUTS, ZARPA_OUTPUTS, ZARPA_OVERRIDABLE };
void *zarpa_count(const zarpa_library *lib, void *session, int which, size_t *n);
void *zarpa_name(const zarpa_library *lib, void *session, int which, size_t i, char **name);
void *zarpa_type(const zarpa_library *lib, void *session, int which, size_t i, void **type);
void zarpa_name_release(const zarpa_library *lib, char *name);
void zarpa_type_release(const zarpa_library *lib, void *type);

// A type, one level of it.
typedef struct {
	int32_t kind;
	int32_t element; // of a tensor; of a map: its keys
	int32_t shaped;  // a tensor whose rank is known
	size_t rank;
	const void *shape; // for zarpa_dims; lives as long as the type
	void *item;        // the type inside: the caller releases it
} zarpa_type_info;
void *zarpa_describe_type(const zarpa_library *lib, void *type, zarpa_type_info *info);
void *zarpa_dims(const zarpa_library *lib, const void *shape, int64_t *dims, const char **names, size_t rank);

// zarpa_trim asks the C library to give free memory back to the system.
void zarpa_trim(void);

#endif
