package score

import (
	"bytes"

	"github.com/zarpa-dev/zarpa"
)

// parameters reads an object of parameters. each is given a name, whose value stands next, and
// reads the value if it is one of its own. The others are kept apart: they are for whom they
// concern, and change nothing here.
func (c *call) parameters(each func(name []byte) (mine bool, err error)) error {
	return object(&c.dec, func(name []byte) error {
		if bytes.HasPrefix(name, []byte("shared_memory_")) {
			return sharedMemory()
		}
		mine, err := each(name)
		if mine || err != nil {
			return err
		}
		return c.dec.Skip()
	})
}

func sharedMemory() *zarpa.Error {
	return zarpa.Errorf(zarpa.Invalid, "shared memory: this server does not support it").
		WithHint("send the tensor's bytes with the request")
}

// requestParameters are those of the whole request.
func (c *call) requestParameters() error {
	return c.parameters(func(name []byte) (bool, error) {
		switch string(name) {
		case "allow_nan":
			return true, c.flag(name, &c.allow)
		case "binary_data_output":
			return true, c.flag(name, &c.binaryOut)
		}
		return false, nil
	})
}

// inputParameters are those of one input.
func (c *call) inputParameters(t *tensor) error {
	return c.parameters(func(name []byte) (bool, error) {
		switch string(name) {
		case "binary_data_size":
			n, err := c.dec.Int64()
			if err != nil || n < 0 {
				return true, zarpa.Errorf(zarpa.Invalid, "parameter binary_data_size: not a number of bytes")
			}
			t.binary, t.size = true, n
			return true, nil
		case "content_type":
			return true, c.base64(&t.base64)
		case "allow_nan":
			return true, c.flag(name, &c.allow)
		}
		return false, nil
	})
}

// maxClasses bounds the classes that a request may ask for.
const maxClasses = 1 << 20

// outputParameters are those of one requested output.
func (c *call) outputParameters(o *requested) error {
	return c.parameters(func(name []byte) (bool, error) {
		switch string(name) {
		case "binary_data":
			o.chosen = true
			return true, c.flag(name, &o.binary)
		case "classification":
			n, err := c.dec.Int64()
			if err != nil || n < 1 || n > maxClasses {
				return true, zarpa.Errorf(zarpa.Invalid, "parameter classification: not a number of classes between 1 and %d", maxClasses)
			}
			o.classes = int(n)
			return true, nil
		case "content_type":
			return true, c.base64(&o.base64)
		case "allow_nan":
			return true, c.flag(name, &c.allow)
		}
		return false, nil
	})
}

func (c *call) flag(name []byte, into *bool) error {
	v, err := c.dec.Bool()
	if err != nil {
		return zarpa.Errorf(zarpa.Invalid, "parameter %s: not true or false", name)
	}
	*into = v
	return nil
}

// base64 reads a content_type, of which "base64" means something for BYTES.
func (c *call) base64(into *bool) error {
	if c.dec.Peek() != '"' {
		return c.dec.Skip()
	}
	text, err := c.dec.Text()
	*into = string(text) == "base64"
	return err
}
