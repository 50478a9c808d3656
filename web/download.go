package web

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// downloadLimit is how long the reader of a file may take.
const downloadLimit = 10 * time.Minute

// file streams a file of the archive. Whoever asks for it is in the audit log before the first byte leaves.
func (s *server) file(w http.ResponseWriter, r *http.Request) {
	s.download(w, r, func(ctx context.Context, tx deal.TxID, who string) (deal.File, io.Closer, error) {
		return s.House.Fetch(ctx, tx, r.PathValue("name"), who)
	})
}

// proof sends the audit proof of a deal.
func (s *server) proof(w http.ResponseWriter, r *http.Request) {
	s.download(w, r, func(ctx context.Context, tx deal.TxID, who string) (deal.File, io.Closer, error) {
		text, err := s.House.Proof(ctx, tx, who)
		return deal.File{ReaderAt: bytes.NewReader(text), Name: string(tx) + " audit proof.json", MediaType: "application/json", Length: int64(len(text))}, io.NopCloser(nil), err
	})
}

func (s *server) download(w http.ResponseWriter, r *http.Request, open func(ctx context.Context, tx deal.TxID, who string) (deal.File, io.Closer, error)) {
	fail := func(err error) {
		s.page(func(context.Context, *http.Request) (*frame, error) { return nil, err })(w, r)
	}
	tx, err := txOf(r)
	if err != nil {
		fail(err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), downloadLimit)
	defer cancel()
	who, _ := reader(ctx)
	f, closer, err := open(ctx, tx, who.Who)
	if err != nil {
		fail(noDeal(tx, err))
		return
	}
	defer closer.Close()
	s.Log.Info("a file was downloaded", "tx", tx, "who", who.Who, "path", r.URL.Path)
	// A file may be larger than what is usually answered in time.
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(downloadLimit)); err != nil {
		s.Log.Debug("a download keeps the usual deadline", "err", err)
	}
	h := w.Header()
	h.Set("Content-Type", f.MediaType)
	h.Set("Content-Disposition", Disposition(f.Name))
	h.Set("Content-Length", strconv.FormatInt(f.Length, 10))
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	_, _ = io.Copy(w, f.Open()) // the client has gone
}

// Disposition has a browser save a file under its name (RFC 6266), whatever script that is in.
func Disposition(name string) string {
	plain := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || strings.ContainsRune(`"\%`, r) {
			return '_'
		}
		return r
	}, name)
	return `attachment; filename="` + plain + `"; filename*=UTF-8''` + strings.ReplaceAll(url.QueryEscape(name), "+", "%20")
}
