package httpx

import (
	"encoding"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/tensorjson"
)

// DecodeJSON reads the body, of at most limit bytes, into v, a pointer. It is strict: a field
// that v has not is refused, with the name nearest to it; so are a field given twice, a value of
// the wrong type, nesting beyond [tensorjson.MaxDepth], anything behind the value, and an empty
// body. Errors are invalid and name the field by its path, or too_large.
func DecodeJSON(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	body, err := ReadBody(w, r, limit, nil)
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(body)) == "" {
		return zarpa.Errorf(zarpa.Invalid, "request body: empty").WithHint("send a JSON object")
	}
	return UnmarshalStrict(body, v)
}

// UnmarshalStrict is what [DecodeJSON] does with a body.
func UnmarshalStrict(text []byte, v any) error {
	var d tensorjson.Decoder
	d.Reset(text)
	c := checker{text: text, d: &d}
	if err := c.value(reflect.TypeOf(v), ""); err != nil {
		return err
	}
	if err := d.End(); err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return unmarshalError(err, "")
	}
	return nil
}

func unmarshalError(err error, path string) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		field := join(path, jsonPath(wrong.Field))
		if field == "" {
			field = "request body"
		}
		return zarpa.Errorf(zarpa.Invalid, "%s: a JSON %s where %s is expected", field, wrong.Value, kindName(wrong.Type))
	}
	if e, ok := errors.AsType[*zarpa.Error](err); ok {
		c := *e
		if path != "" && !strings.HasPrefix(c.Message, path) {
			c.Message = path + ": " + c.Message
		}
		return &c
	}
	if path == "" {
		path = "request body"
	}
	return zarpa.Errorf(zarpa.Invalid, "%s: %w", path, err)
}

// jsonPath leaves out what is no name of JSON's: encoding/json shows embedded structs in the path
// under their Go names, which begin with a capital.
func jsonPath(field string) string {
	names := slices.DeleteFunc(strings.Split(field, "."), func(name string) bool {
		return name != "" && name[0] >= 'A' && name[0] <= 'Z'
	})
	return strings.Join(names, ".")
}

func kindName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Pointer:
		return kindName(t.Elem())
	case reflect.Float32, reflect.Float64:
		return "a number"
	}
	return "a whole number in the range of " + t.Kind().String()
}

func join(path, field string) string {
	if path == "" || field == "" {
		return path + field
	}
	return path + "." + field
}

// checker walks a text beside the type that it is for.
type checker struct {
	text []byte
	d    *tensorjson.Decoder
}

func (c *checker) value(t reflect.Type, path string) error {
	for t.Kind() == reflect.Pointer && !readsItself(t) {
		t = t.Elem()
	}
	open := c.d.Peek()
	switch {
	case readsItself(t):
		return c.own(t, path)
	case t.Kind() == reflect.Struct && open == '{':
		return c.object(path, fields(t))
	case t.Kind() == reflect.Map && open == '{':
		elem := t.Elem()
		return c.members(func(key string) error { return c.value(elem, join(path, key)) }, path)
	case (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) && open == '[':
		return c.array(t.Elem(), path)
	}
	return c.d.Skip() // of the wrong kind: json.Unmarshal says so
}

func readsItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(reflect.TypeFor[json.Unmarshaler]()) || p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// own lets a type that reads itself do so, to put the path before its error.
func (c *checker) own(t reflect.Type, path string) error {
	from := c.d.Offset()
	if err := c.d.Skip(); err != nil {
		return err
	}
	if err := json.Unmarshal(c.text[from:c.d.Offset()], reflect.New(t).Interface()); err != nil {
		return unmarshalError(err, path)
	}
	return nil
}

func (c *checker) object(path string, known map[string]reflect.Type) error {
	return c.members(func(key string) error {
		t, ok := known[key]
		if !ok {
			err := zarpa.Errorf(zarpa.Invalid, "%s: unknown field", join(path, key))
			names := make([]string, 0, len(known))
			for name := range known {
				names = append(names, name)
			}
			slices.Sort(names)
			if near := zarpa.Nearest(key, names); near != "" {
				return err.WithHint("did you mean %s?", near)
			}
			return err.WithHint("known are %s", strings.Join(names, ", "))
		}
		return c.value(t, join(path, key))
	}, path)
}

func (c *checker) members(each func(key string) error, path string) error {
	if err := c.d.BeginObject(); err != nil {
		return err
	}
	seen := map[string]bool{}
	for {
		raw, ok, err := c.d.Key()
		if !ok || err != nil {
			return err
		}
		key := string(raw)
		if seen[key] {
			return zarpa.Errorf(zarpa.Invalid, "%s: stands there twice", join(path, key))
		}
		seen[key] = true
		if err := each(key); err != nil {
			return err
		}
	}
}

func (c *checker) array(elem reflect.Type, path string) error {
	if err := c.d.BeginArray(); err != nil {
		return err
	}
	for i := 0; ; i++ {
		more, err := c.d.More()
		if !more || err != nil {
			return err
		}
		if err := c.value(elem, path+"["+strconv.Itoa(i)+"]"); err != nil {
			return err
		}
	}
}

// fields maps the JSON names of a struct's fields to their types, embedded structs included.
func fields(t reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case !f.IsExported(), name == "-", f.Anonymous && name == "":
			continue
		case name == "":
			name = f.Name
		}
		out[name] = f.Type
	}
	return out
}
