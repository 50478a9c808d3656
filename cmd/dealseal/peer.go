package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/user"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// personHeader is how root's command tells who logged in to the machine to become root. The kernel remembers that over
// sudo, but shows it to a confined daemon of no process but its own.
const personHeader = "Dealseal-Person"

// maxPerson is the longest name of a person that is taken, in bytes; Linux has 32.
const maxPerson = 64

type (
	peerKey struct{}
	whoKey  struct{}
)

// peer is the user at the other end of the control socket, as the kernel knows it; the zero value is nobody.
type peer struct {
	known bool
	uid   int
}

func peerAt(c net.Conn) (p peer) {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return peer{}
	}
	err = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			p = peer{true, int(cred.Uid)}
		}
	})
	if err != nil {
		return peer{}
	}
	return p
}

// name is that of the user. Only root is believed which person it is: it could make the kernel believe anything as well.
func (p peer) name(person string) string {
	switch {
	case !p.known:
		return ""
	case p.uid != 0:
		return userName(p.uid)
	}
	return rootAs(person)
}

// rootAs is root's name with that of the person who became root, if there is one that can be shown.
func rootAs(person string) string {
	odd := func(r rune) bool { return !unicode.IsGraphic(r) || strings.ContainsRune("()", r) }
	if person == "" || len(person) > maxPerson || strings.ContainsFunc(person, odd) {
		return userName(0)
	}
	return userName(0) + " (" + person + ")"
}

func withPeer(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, peerAt(c))
}

// naming lets handlers ask peerOf.
func naming(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := r.Context().Value(peerKey{}).(peer)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), whoKey{}, p.name(r.Header.Get(personHeader)))))
	})
}

// peerOf is who asks; empty when the socket does not know.
func peerOf(ctx context.Context) string {
	who, _ := ctx.Value(whoKey{}).(string)
	return who
}

// myName is who runs this process.
func myName() string { return peer{true, os.Geteuid()}.name(myPerson()) }

// myPerson is who logged in to run it; empty for root, and for what nobody runs.
func myPerson() string {
	text, err := os.ReadFile("/proc/self/loginuid")
	if err != nil {
		return ""
	}
	return loginName(string(text))
}

// loginName reads a loginuid file; empty for root, for nobody in particular, and for what is none.
func loginName(text string) string {
	const unset = 1<<32 - 1
	uid, err := strconv.ParseUint(strings.TrimSpace(text), 10, 32)
	if err != nil || uid == 0 || uid == unset {
		return ""
	}
	return userName(int(uid))
}

func userName(uid int) string {
	id := strconv.Itoa(uid)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "uid " + id
}
