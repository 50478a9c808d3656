package store

// operations name every moment at which the store makes something durable.
var operations = [...]string{
	"commit/open", "commit/activate", "commit/notice", "commit/request", "commit/identify", "commit/begin", "commit/advance",
	"commit/told", "commit/operate", "commit/erase", "commit/poll", "commit/memory", "commit/checkpoint",
	"commit/recover", "commit/job", "commit/stamp", "commit/pass", "commit/compared", "commit/endpoint", "commit/send", "commit/sent",
	"commit/receive", "commit/refused", "commit/forget", "commit/callback-looked", "commit/callback-begin", "commit/callback-end", "commit/secrets", "commit/errand", "commit/follow-up",
	"fsync/staging-file", "rename/staging", "fsync/staging-dir",
	"fsync/archive-file", "fsync/archive-manifest", "fsync/archive-new-dir", "rename/archive", "fsync/archive-dir",
	"rename/manifest",
	"fsync/high-water", "rename/high-water", "fsync/state-dir",
}

// Points lists the names that Options.Hook is called with: each commit, fsync and rename, before and after. The names
// are stable; crash tests are generated from this list.
func Points() []string {
	var points []string
	for _, o := range operations {
		points = append(points, o+":before", o+":after")
	}
	return points
}
