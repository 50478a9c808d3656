package typst

// The JavaScript values that the compiler's bindings exchange with their host. Only what they use exists: undefined,
// null (nil), booleans, numbers (float64) and strings are Go values, the rest are the types below.
type (
	undefined  struct{}
	byteArray  struct{ b []byte }
	array      struct{ items []any }
	failure    struct{ message string } // an Error
	date       struct{}                 // the epoch; its time zone offset is all that is asked
	classValue struct{ pointer uint32 } // a Rust value behind a JavaScript class
	// function is a JavaScript function. It finds its instance when it is called, so that a copy of the instance calls itself.
	function struct {
		call func(g *guest, args ...any) (any, error)
	}
)

// object keeps its keys in the order of insertion, as JavaScript does.
type object struct {
	keys   []string
	values map[string]any
}

func newObject() *object { return &object{values: make(map[string]any)} }

func (o *object) get(key string) any {
	if v, ok := o.values[key]; ok {
		return v
	}
	return undefined{}
}

func (o *object) set(key string, v any) {
	if _, ok := o.values[key]; !ok {
		o.keys = append(o.keys, key)
	}
	o.values[key] = v
}

func (o *object) text(key string) string {
	s, _ := o.values[key].(string)
	return s
}

// promise settles once and then queues its continuations.
type promise struct {
	settled, ok bool
	value       any
	then        []*function
}

func (p *promise) settle(g *guest, ok bool, v any) {
	if p.settled {
		return
	}
	p.settled, p.ok, p.value = true, ok, v
	for _, f := range p.then {
		g.queue(f, v)
	}
	p.then = nil
}

// reserved is where wasm-bindgen's object heap starts to hand out slots: 128 unused ones, then undefined, null, true
// and false.
const reserved = 132

// heap holds the values that the guest refers to by number.
type heap struct {
	slots []any
	free  []uint32
}

func newHeap() heap {
	h := heap{slots: make([]any, reserved)}
	for i := range h.slots {
		h.slots[i] = undefined{}
	}
	h.slots[129], h.slots[130], h.slots[131] = nil, true, false
	return h
}

func (h *heap) add(v any) uint64 {
	if n := len(h.free); n > 0 {
		i := h.free[n-1]
		h.free = h.free[:n-1]
		h.slots[i] = v
		return uint64(i)
	}
	h.slots = append(h.slots, v)
	return uint64(len(h.slots) - 1)
}

func (h *heap) get(i uint64) any { return h.slots[uint32(i)] }

func (h *heap) take(i uint64) any {
	v := h.get(i)
	if uint32(i) >= reserved {
		h.slots[uint32(i)] = undefined{}
		h.free = append(h.free, uint32(i))
	}
	return v
}
