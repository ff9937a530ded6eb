//go:build cgo

#include "native.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

enum { API_VERSION = 24 };

enum { KIND_TENSOR = 1, KIND_SEQUENCE = 2, KIND_MAP = 3, KIND_SPARSE = 5, KIND_OPTIONAL = 6 };
enum { ELEMENT_STRING = 8 };

// Places in the table.
enum {
	GetErrorCode = 1,
	GetErrorMessage = 2,
	Run = 9,
	SessionGetInputCount = 30,
	SessionGetOutputCount = 31,
	SessionGetOverridableInitializerCount = 32,
	SessionGetInputTypeInfo = 33,
	SessionGetOutputTypeInfo = 34,
	SessionGetOverridableInitializerTypeInfo = 35,
	SessionGetInputName = 36,
	SessionGetOutputName = 37,
	SessionGetOverridableInitializerName = 38,
	CreateRunOptions = 39,
	RunOptionsSetTerminate = 46,
	RunOptionsUnsetTerminate = 47,
	CreateTensorAsOrtValue = 48,
	CreateTensorWithDataAsOrtValue = 49,
	GetTensorMutableData = 51,
	GetStringTensorDataLength = 53,
	GetStringTensorContent = 54,
	CastTypeInfoToTensorInfo = 55,
	GetOnnxTypeFromTypeInfo = 56,
	GetTensorElementType = 60,
	GetDimensionsCount = 61,
	GetDimensions = 62,
	GetSymbolicDimensions = 63,
	GetValueType = 67,
	CreateCpuMemoryInfo = 69,
	AllocatorFree = 76,
	GetAllocatorWithDefaultOptions = 78,
	GetValue = 80,
	GetValueCount = 81,
	CreateValue = 82,
	ReleaseStatus = 93,
	ReleaseValue = 96,
	ReleaseRunOptions = 97,
	ReleaseTypeInfo = 98,
	CastTypeInfoToMapTypeInfo = 103,
	CastTypeInfoToSequenceTypeInfo = 104,
	GetMapKeyType = 105,
	GetMapValueType = 106,
	GetSequenceElementType = 107,
	HasValue = 192,
	CastTypeInfoToOptionalTypeInfo = 250,
	GetOptionalContainedTypeInfo = 251,
	GetResizedStringTensorElementBuffer = 252,
	TensorTypeAndShape_HasShape = 390,
	GetTensorElementTypeAndShapeDataReference = 414,
};

// CALL(place, result type, (parameter types), (arguments))
#define CALL(place, result, parameters, arguments) (((result(*) parameters)lib->api[place]) arguments)
#define TRY(expression)                    \
	do {                                   \
		void *status_ = (expression);      \
		if (status_ != NULL) return status_; \
	} while (0)

const char *zarpa_status_text(const zarpa_library *lib, void *status) {
	return CALL(GetErrorMessage, const char *, (const void *), (status));
}

int zarpa_status_code(const zarpa_library *lib, void *status) {
	return CALL(GetErrorCode, int, (const void *), (status));
}

void zarpa_status_release(const zarpa_library *lib, void *status) {
	CALL(ReleaseStatus, void, (void *), (status));
}

// The start of the library's one exported structure.
typedef struct {
	const void *(*get_api)(uint32_t version);
	const char *(*get_version)(void);
} api_base;

int zarpa_open(const char *path, zarpa_library *lib, char *error, size_t error_size) {
	memset(lib, 0, sizeof *lib);
	lib->handle = dlopen(path, RTLD_LAZY);
	if (lib->handle == NULL) {
		const char *text = dlerror();
		snprintf(error, error_size, "%s", text == NULL ? "dlopen failed" : text);
		return 1;
	}
	const api_base *(*get_base)(void) = (const api_base *(*)(void))dlsym(lib->handle, "OrtGetApiBase");
	const api_base *base = get_base == NULL ? NULL : get_base();
	if (base == NULL) {
		zarpa_close(lib);
		return 2;
	}
	lib->version = base->get_version();
	lib->api = (const void *const *)base->get_api(API_VERSION);
	if (lib->api == NULL) {
		snprintf(error, error_size, "%s", lib->version);
		zarpa_close(lib);
		return 3;
	}
	return 0;
}

void zarpa_close(zarpa_library *lib) {
	dlclose(lib->handle);
	memset(lib, 0, sizeof *lib);
}

void *zarpa_prepare(zarpa_library *lib) {
	enum { DEVICE_ALLOCATOR = 0, MEMORY_DEFAULT = 0 };
#ifdef __GLIBC__
	// glibc raises these limits as it sees larger blocks, and then keeps as much for ever: a
	// model's memory would outlive the model.
	mallopt(M_MMAP_THRESHOLD, 1 << 20);
	mallopt(M_TRIM_THRESHOLD, 1 << 20);
#endif
	TRY(CALL(CreateCpuMemoryInfo, void *, (int, int, void **), (DEVICE_ALLOCATOR, MEMORY_DEFAULT, &lib->memory)));
	return CALL(GetAllocatorWithDefaultOptions, void *, (void **), (&lib->allocator));
}

// describe fills in all of out but the value itself.
static void *describe(const zarpa_library *lib, zarpa_value *out) {
	int present = 0, kind = 0, element = 0;
	out->data = NULL;
	out->dims = NULL;
	out->rank = out->size = 0;
	out->kind = out->type = 0;
	if (out->value == NULL) return NULL;
	TRY(CALL(HasValue, void *, (const void *, int *), (out->value, &present)));
	if (!present) return NULL;
	TRY(CALL(GetValueType, void *, (const void *, int *), (out->value, &kind)));
	out->kind = kind;
	if (kind == KIND_SEQUENCE || kind == KIND_MAP)
		return CALL(GetValueCount, void *, (const void *, size_t *), (out->value, &out->size));
	if (kind != KIND_TENSOR) return NULL;
	TRY(CALL(GetTensorElementTypeAndShapeDataReference, void *, (const void *, int *, const int64_t **, size_t *),
		(out->value, &element, &out->dims, &out->rank)));
	out->type = element;
	if (element == ELEMENT_STRING) return NULL;
	return CALL(GetTensorMutableData, void *, (void *, void **), (out->value, &out->data));
}

void zarpa_release(const zarpa_library *lib, zarpa_value *values, size_t n) {
	for (size_t i = 0; i < n; i++) {
		if (values[i].value != NULL) CALL(ReleaseValue, void, (void *), (values[i].value));
		values[i].value = NULL;
	}
}

void *zarpa_tensor(const zarpa_library *lib, zarpa_value *in) {
	static char nothing[16]; // an empty tensor's data: any address but NULL
	return CALL(CreateTensorWithDataAsOrtValue, void *,
		(const void *, void *, size_t, const int64_t *, size_t, int, void **),
		(lib->memory, in->size == 0 ? nothing : in->data, in->size, in->dims, in->rank, in->type, &in->value));
}

void *zarpa_run(const zarpa_library *lib, zarpa_call *call) {
	void *status = NULL;
	void **outputs = call->values + call->input_count;
	for (size_t i = 0; i < call->input_count && status == NULL; i++) {
		if (call->inputs[i].value == NULL) status = zarpa_tensor(lib, &call->inputs[i]);
		call->values[i] = call->inputs[i].value;
	}
	memset(outputs, 0, call->output_count * sizeof *outputs);
	if (status == NULL)
		status = CALL(Run, void *,
			(void *, const void *, const char *const *, const void *const *, size_t, const char *const *, size_t, void **),
			(call->session, call->options, call->input_names, (const void *const *)call->values, call->input_count,
				call->output_names, call->output_count, outputs));
	zarpa_release(lib, call->inputs, call->input_count);
	for (size_t i = 0; i < call->output_count; i++) {
		call->outputs[i].value = outputs[i];
		if (status == NULL) status = describe(lib, &call->outputs[i]);
	}
	if (status != NULL) zarpa_release(lib, call->outputs, call->output_count);
	return status;
}

void *zarpa_items(const zarpa_library *lib, void *value, size_t n, zarpa_value *items) {
	void *status = NULL;
	memset(items, 0, n * sizeof *items);
	for (size_t i = 0; i < n && status == NULL; i++) {
		status = CALL(GetValue, void *, (const void *, int, void *, void **), (value, (int)i, lib->allocator, &items[i].value));
		if (status == NULL) status = describe(lib, &items[i]);
	}
	if (status != NULL) zarpa_release(lib, items, n);
	return status;
}

void *zarpa_strings(const zarpa_library *lib, zarpa_value *in, const char *bytes, const int64_t *lengths) {
	TRY(CALL(CreateTensorAsOrtValue, void *, (void *, const int64_t *, size_t, int, void **),
		(lib->allocator, in->dims, in->rank, ELEMENT_STRING, &in->value)));
	for (size_t i = 0; i < in->size; i++) {
		char *room = NULL;
		TRY(CALL(GetResizedStringTensorElementBuffer, void *, (void *, size_t, size_t, char **),
			(in->value, i, (size_t)lengths[i], &room)));
		if (lengths[i] > 0) memcpy(room, bytes, (size_t)lengths[i]);
		bytes += lengths[i];
	}
	return NULL;
}

void *zarpa_container(const zarpa_library *lib, zarpa_value *in, zarpa_value *items, size_t n) {
	void **values = malloc((n + 1) * sizeof *values);
	for (size_t i = 0; i < n; i++) values[i] = items[i].value;
	void *status = CALL(CreateValue, void *, (const void *const *, size_t, int, void **),
		((const void *const *)values, n, in->kind, &in->value));
	free(values);
	return status;
}

void *zarpa_string_size(const zarpa_library *lib, void *value, size_t *size) {
	return CALL(GetStringTensorDataLength, void *, (const void *, size_t *), (value, size));
}

void *zarpa_string_content(const zarpa_library *lib, void *value, char *bytes, size_t size, size_t *offsets, size_t n) {
	return CALL(GetStringTensorContent, void *, (const void *, void *, size_t, size_t *, size_t),
		(value, bytes, size, offsets, n));
}

void *zarpa_run_options(const zarpa_library *lib, void **options) {
	return CALL(CreateRunOptions, void *, (void **), (options));
}

void zarpa_run_options_release(const zarpa_library *lib, void *options) {
	CALL(ReleaseRunOptions, void, (void *), (options));
}

void *zarpa_terminate(const zarpa_library *lib, void *options) {
	return CALL(RunOptionsSetTerminate, void *, (void *), (options));
}

void *zarpa_unterminate(const zarpa_library *lib, void *options) {
	return CALL(RunOptionsUnsetTerminate, void *, (void *), (options));
}

void *zarpa_count(const zarpa_library *lib, void *session, int which, size_t *n) {
	return CALL(SessionGetInputCount + which, void *, (const void *, size_t *), (session, n));
}

void *zarpa_name(const zarpa_library *lib, void *session, int which, size_t i, char **name) {
	return CALL(SessionGetInputName + which, void *, (const void *, size_t, void *, char **),
		(session, i, lib->allocator, name));
}

void *zarpa_type(const zarpa_library *lib, void *session, int which, size_t i, void **type) {
	return CALL(SessionGetInputTypeInfo + which, void *, (const void *, size_t, void **), (session, i, type));
}

void zarpa_name_release(const zarpa_library *lib, char *name) {
	zarpa_status_release(lib, CALL(AllocatorFree, void *, (void *, void *), (lib->allocator, name)));
}

void zarpa_type_release(const zarpa_library *lib, void *type) {
	CALL(ReleaseTypeInfo, void, (void *), (type));
}

// cast reads the part of a type that is particular to its kind.
static void *cast(const zarpa_library *lib, int place, void *type, const void **out) {
	return CALL(place, void *, (const void *, const void **), (type, out));
}

void *zarpa_describe_type(const zarpa_library *lib, void *type, zarpa_type_info *info) {
	const void *part = NULL;
	int value = 0;
	memset(info, 0, sizeof *info);
	TRY(CALL(GetOnnxTypeFromTypeInfo, void *, (const void *, int *), (type, &value)));
	info->kind = value;
	switch (info->kind) {
	case KIND_SEQUENCE:
		TRY(cast(lib, CastTypeInfoToSequenceTypeInfo, type, &part));
		return CALL(GetSequenceElementType, void *, (const void *, void **), (part, &info->item));
	case KIND_OPTIONAL:
		TRY(cast(lib, CastTypeInfoToOptionalTypeInfo, type, &part));
		return CALL(GetOptionalContainedTypeInfo, void *, (const void *, void **), (part, &info->item));
	case KIND_MAP:
		TRY(cast(lib, CastTypeInfoToMapTypeInfo, type, &part));
		TRY(CALL(GetMapKeyType, void *, (const void *, int *), (part, &value)));
		info->element = value;
		return CALL(GetMapValueType, void *, (const void *, void **), (part, &info->item));
	case KIND_TENSOR:
	case KIND_SPARSE:
		TRY(cast(lib, CastTypeInfoToTensorInfo, type, &info->shape));
		TRY(CALL(GetTensorElementType, void *, (const void *, int *), (info->shape, &value)));
		info->element = value;
		info->shaped = CALL(TensorTypeAndShape_HasShape, _Bool, (const void *), (info->shape));
		return CALL(GetDimensionsCount, void *, (const void *, size_t *), (info->shape, &info->rank));
	}
	return NULL;
}

void *zarpa_dims(const zarpa_library *lib, const void *shape, int64_t *dims, const char **names, size_t rank) {
	TRY(CALL(GetDimensions, void *, (const void *, int64_t *, size_t), (shape, dims, rank)));
	return CALL(GetSymbolicDimensions, void *, (const void *, const char **, size_t), (shape, names, rank));
}

void zarpa_trim(void) {
#ifdef __GLIBC__
	malloc_trim(0);
#endif
}
