package modelfile

import (
	"slices"
	"strconv"
	"strings"
)

// opcodes are the instructions of pickles, of protocols 0 to 5, as the module pickletools of Python's
// standard library describes them.
var opcodes = [256]func(m *machine) error{
	// what changes the course
	0x80: func(m *machine) error { return m.in.skip(1) }, // PROTO
	0x95: func(m *machine) error { return m.in.skip(8) }, // FRAME
	'.':  func(m *machine) error { m.done = true; return nil },
	'(':  func(m *machine) error { m.marks = append(m.marks, len(m.stack)); return nil },
	'0':  (*machine).drop,
	'1':  func(m *machine) error { _, err := m.popMark(); return err },
	'2':  (*machine).double,
	// numbers and constants
	'N': constant(pickled{}), 0x88: constant(pickled{}), 0x89: constant(pickled{}),
	0x97: constant(pickled{}), // NEXT_BUFFER
	0x98: func(*machine) error { return nil },
	'J':  integer(4), 'K': integer(1), 'M': integer(2),
	'I': decimal, 'L': decimal, 'F': decimal,
	'G':  func(m *machine) error { m.push(pickled{}); return m.in.skip(8) },
	0x8a: skipped(1), 0x8b: skipped(4), // LONG1, LONG4
	// texts and bytes
	'U': sized(1), 'T': sized(4), 0x8c: sized(1), 'X': sized(4), 0x8d: sized(8),
	'C': skipped(1), 'B': skipped(4), 0x8e: skipped(8), 0x96: skipped(8),
	'S': quoted, 'V': quoted,
	// containers
	')':  constant(pickled{kind: kindTuple, obj: &pickledObject{}}),
	't':  func(m *machine) error { return m.tuple(-1) },
	0x85: func(m *machine) error { return m.tuple(1) }, 0x86: func(m *machine) error { return m.tuple(2) },
	0x87: func(m *machine) error { return m.tuple(3) },
	']':  constant(pickled{kind: kindList}), 'l': collected(kindList),
	'a': (*machine).drop, 'e': func(m *machine) error { _, err := m.popMark(); return err },
	'}': func(m *machine) error { m.push(pickled{kind: kindDict, obj: &pickledObject{}}); return nil },
	'd': (*machine).dict, 's': (*machine).setItem, 'u': (*machine).setItems,
	0x8f: constant(pickled{}), 0x90: func(m *machine) error { _, err := m.popMark(); return err }, 0x91: collected(kindOther),
	// memory
	'p':  func(m *machine) error { return m.lineKey((*machine).keep) },
	'q':  func(m *machine) error { return m.binaryKey(1, (*machine).keep) },
	'r':  func(m *machine) error { return m.binaryKey(4, (*machine).keep) },
	0x94: func(m *machine) error { m.next++; return m.keep(m.next - 1) },
	'g':  func(m *machine) error { return m.lineKey((*machine).recall) },
	'h':  func(m *machine) error { return m.binaryKey(1, (*machine).recall) },
	'j':  func(m *machine) error { return m.binaryKey(4, (*machine).recall) },
	// classes and objects
	'c': (*machine).lineGlobal, 0x93: (*machine).stackGlobal,
	'R': func(m *machine) error { return m.call(0) }, 0x81: func(m *machine) error { return m.call(0) },
	0x92: func(m *machine) error { return m.call(1) }, // NEWOBJ_EX: keywords above the arguments
	'i':  (*machine).instance, 'o': (*machine).object, 'b': (*machine).build,
	0x82: skipped(1 | unnamed), 0x83: skipped(2 | unnamed), 0x84: skipped(4 | unnamed), // EXT: a number that a registry knows
	'P': func(m *machine) error { _, err := m.in.line(0); m.push(pickled{}); return err }, 'Q': func(m *machine) error { return m.replace(pickled{}) },
}

// unnamed marks an operand that is all there is: no bytes follow it.
const unnamed = 64

func constant(v pickled) func(*machine) error {
	return func(m *machine) error { m.push(v); return nil }
}

func integer(size int) func(*machine) error {
	return func(m *machine) error {
		v, err := m.in.unsigned(size)
		n := int64(v)
		if size == 4 {
			n = int64(int32(v)) //nolint:gosec // BININT is signed
		}
		m.push(pickled{kind: kindInt, number: n})
		return err
	}
}

func decimal(m *machine) error {
	line, err := m.in.line(maxPickleText)
	n, _ := strconv.ParseInt(strings.TrimSuffix(line, "L"), 10, 64) // what is no whole number counts as 0
	m.push(pickled{kind: kindInt, number: n})
	return err
}

// skipped is a value of no interest, behind its length in so many bytes.
func skipped(size int) func(*machine) error {
	return func(m *machine) error {
		n, err := m.in.unsigned(size &^ unnamed)
		m.push(pickled{})
		if err != nil || size&unnamed != 0 {
			return err
		}
		return m.in.skip(n)
	}
}

func sized(size int) func(*machine) error {
	return func(m *machine) error {
		n, err := m.in.unsigned(size)
		if err != nil {
			return err
		}
		return m.text(n)
	}
}

func quoted(m *machine) error {
	line, err := m.in.line(maxPickleText)
	m.found.texts += len(line)
	if n := len(line); n >= 2 && (line[0] == '\'' || line[0] == '"') && line[n-1] == line[0] {
		line = line[1 : n-1]
	}
	m.push(pickled{kind: kindText, text: line})
	return err
}

func collected(kind pickleKind) func(*machine) error {
	return func(m *machine) error {
		_, err := m.popMark()
		m.push(pickled{kind: kind})
		return err
	}
}

func (m *machine) drop() error { _, err := m.pop(); return err }

func (m *machine) replace(v pickled) error {
	_, err := m.pop()
	m.push(v)
	return err
}

func (m *machine) double() error {
	v, err := m.top()
	if err == nil {
		m.push(*v)
	}
	return err
}

// tuple makes one of the last n values, of those since the mark for -1.
func (m *machine) tuple(n int) error {
	var items []pickled
	if n < 0 {
		marked, err := m.popMark()
		if err != nil {
			return err
		}
		items = marked
	} else {
		for range n {
			v, err := m.pop()
			if err != nil {
				return err
			}
			items = append(items, v)
		}
		slices.Reverse(items)
	}
	items = slices.Clone(items[:min(len(items), maxPickleItems)])
	m.push(pickled{kind: kindTuple, obj: &pickledObject{items: items}})
	return nil
}

func (m *machine) dict() error {
	items, err := m.popMark()
	d := pickled{kind: kindDict, obj: &pickledObject{}}
	for i := 0; i+1 < len(items); i += 2 {
		m.set(&d, items[i], items[i+1])
	}
	m.push(d)
	return err
}

func (m *machine) setItem() error {
	value, err := m.pop()
	if err != nil {
		return err
	}
	key, err := m.pop()
	if err != nil {
		return err
	}
	d, err := m.top()
	if err == nil {
		m.set(d, key, value)
	}
	return err
}

func (m *machine) setItems() error {
	items, err := m.popMark()
	if err != nil {
		return err
	}
	d, err := m.top()
	if err != nil {
		return err
	}
	for i := 0; i+1 < len(items); i += 2 {
		m.set(d, items[i], items[i+1])
	}
	return nil
}

func (m *machine) lineKey(use func(*machine, uint64) error) error {
	line, err := m.in.line(maxPickleText)
	if err != nil {
		return err
	}
	key, err := strconv.ParseUint(strings.TrimSpace(line), 10, 64)
	if err != nil {
		return brokenPickle(m.in.pos)
	}
	return use(m, key)
}

func (m *machine) binaryKey(size int, use func(*machine, uint64) error) error {
	key, err := m.in.unsigned(size)
	if err != nil {
		return err
	}
	return use(m, key)
}

// recall pushes what was kept; what was of no interest was not.
func (m *machine) recall(key uint64) error {
	m.push(m.memo[key])
	return nil
}

func (m *machine) lineGlobal() error {
	module, err := m.in.line(maxPickleText)
	if err != nil {
		return err
	}
	name, err := m.in.line(maxPickleText)
	m.global(module, name)
	return err
}

func (m *machine) stackGlobal() error {
	name, err := m.pop()
	if err != nil {
		return err
	}
	module, err := m.pop()
	m.global(module.text, name.text)
	return err
}

// call calls the value under the arguments and so many more.
func (m *machine) call(above int) error {
	for range above {
		if _, err := m.pop(); err != nil {
			return err
		}
	}
	args, err := m.pop()
	if err != nil {
		return err
	}
	function, err := m.pop()
	if err != nil {
		return err
	}
	var items []pickled
	if args.kind == kindTuple {
		items = args.obj.items
	}
	m.push(called(function, items))
	return nil
}

// instance is protocol 0's: the class stands in the file, the arguments since the mark.
func (m *machine) instance() error {
	if err := m.lineGlobal(); err != nil {
		return err
	}
	class, err := m.pop()
	if err != nil {
		return err
	}
	args, err := m.popMark()
	if err != nil {
		return err
	}
	m.push(called(class, args))
	return nil
}

// object is protocol 1's: class and arguments stand since the mark.
func (m *machine) object() error {
	items, err := m.popMark()
	if err != nil {
		return err
	}
	if len(items) == 0 {
		return brokenPickle(m.in.pos)
	}
	m.push(called(items[0], items[1:]))
	return nil
}
