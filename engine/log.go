package engine

import (
	"context"
	"log/slog"
	"slices"
)

// logKey carries what every line that is logged with a context should bear.
type logKey struct{}

// logged returns a context whose log lines bear these attributes beside those of ctx.
func logged(ctx context.Context, attrs ...slog.Attr) context.Context {
	before, _ := ctx.Value(logKey{}).([]slog.Attr)
	return context.WithValue(ctx, logKey{}, append(slices.Clip(before), attrs...))
}

// LogHandler adds to every record what its context says of the work at hand: the tenant, the deal's transaction (tx) and
// its step. Whoever the engine calls, down to the connectors and the store, need only log with the context to be found
// under the deal's ID. An attribute that a record has already is left alone.
func LogHandler(next slog.Handler) slog.Handler { return &logHandler{next: next} }

type logHandler struct {
	next slog.Handler
	with []string // keys that all records of this handler have
}

func (h *logHandler) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	attrs, _ := ctx.Value(logKey{}).([]slog.Attr)
	if len(attrs) == 0 {
		return h.next.Handle(ctx, r)
	}
	r = r.Clone()
	has := slices.Clone(h.with)
	r.Attrs(func(a slog.Attr) bool { has = append(has, a.Key); return true })
	for i, a := range attrs {
		later := slices.ContainsFunc(attrs[i+1:], func(b slog.Attr) bool { return a.Key == b.Key })
		if !later && !slices.Contains(has, a.Key) {
			r.AddAttrs(a)
		}
	}
	return h.next.Handle(ctx, r)
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := slices.Clip(h.with)
	for _, a := range attrs {
		with = append(with, a.Key)
	}
	return &logHandler{next: h.next.WithAttrs(attrs), with: with}
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	return &logHandler{next: h.next.WithGroup(name), with: h.with}
}
