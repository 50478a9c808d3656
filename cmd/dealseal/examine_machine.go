package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dealseal/dealseal/doctor"
	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/store"
)

// Names of the checks of the machine.
const (
	checkStateDirectory = "state_dir"
	checkFileSystem     = "file_system"
	checkSpace          = "space"
	checkSync           = "fsync"
	checkSocket         = "socket"
	checkMaster         = "master_key"
	checkRendered       = "document"
)

func (x *examiner) examineStateDir() doctor.Examination {
	return examination(doctor.Machine, checkStateDirectory, "", machineLimit, func(ctx context.Context, report func(doctor.Finding)) {
		dir := x.cfg.StateDir
		info, err := os.Stat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			report(doctor.Warned(checkStateDirectory, "start the daemon once; if that was done, correct state_dir", "%s does not exist yet: the daemon makes it when it first starts", dir))
			return
		case err != nil:
			report(failed(checkStateDirectory, err, "run the command as the daemon's user"))
			return
		case !info.IsDir():
			report(doctor.Failed(checkStateDirectory, "name a folder as state_dir", "%s is no folder", dir))
			return
		case x.stateDir != nil:
			report(doctor.Failed(checkStateDirectory, "run the command as the daemon's user, or while the daemon runs", "%v", x.stateDir))
			return
		}
		report(modeFinding(dir, info.Mode().Perm()))
		report(fileSystemFinding(dir))
		report(spaceFinding(dir, int64(x.cfg.DiskFloor)))
		report(syncFinding(ctx, dir))
		if f, ok := socketFinding(controlSocket(dir)); ok {
			report(f)
		}
	})
}

// modeFinding judges who may look into the state directory. What is personal in it is encrypted; who has which deals is not.
func modeFinding(dir string, mode fs.FileMode) doctor.Finding {
	cure := fmt.Sprintf("chmod 700 %s", dir)
	switch {
	case mode&0o022 != 0:
		return doctor.Failed(checkStateDirectory, cure, "other users may change %s (mode %04o)", dir, mode)
	case mode&0o055 != 0:
		return doctor.Warned(checkStateDirectory, cure, "other users may look into %s (mode %04o)", dir, mode)
	}
	return doctor.Passed(checkStateDirectory, "%s is the daemon's user's alone", dir)
}

// networkFileSystems are those on which locks and fsync are not what SQLite needs (statfs(2)).
var networkFileSystems = map[int64]string{
	unix.NFS_SUPER_MAGIC: "NFS", unix.SMB_SUPER_MAGIC: "SMB", unix.SMB2_SUPER_MAGIC: "SMB", unix.CIFS_SUPER_MAGIC: "CIFS", unix.AFS_SUPER_MAGIC: "AFS",
	unix.CEPH_SUPER_MAGIC: "Ceph", unix.CODA_SUPER_MAGIC: "Coda", unix.V9FS_MAGIC: "9P", unix.OCFS2_SUPER_MAGIC: "OCFS2", unix.FUSE_SUPER_MAGIC: "FUSE",
	0x0BD00BD0: "Lustre", 0x47504653: "GPFS",
}

func fileSystemFinding(dir string) doctor.Finding {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return failed(checkFileSystem, err, "mend the file system")
	}
	return judgeFileSystem(int64(st.Type), int64(st.Flags))
}

func judgeFileSystem(magic, flags int64) doctor.Finding {
	if flags&unix.ST_RDONLY != 0 {
		return doctor.Failed(checkFileSystem, "mount it for writing: the kernel does this by itself after errors of the disk", "it is mounted read-only")
	}
	if name, is := networkFileSystems[magic]; is {
		return doctor.Warned(checkFileSystem, "put state_dir on a local disk: locks and fsync are not reliable over a network", "%s", name)
	}
	if magic == unix.TMPFS_MAGIC || magic == unix.RAMFS_MAGIC {
		return doctor.Warned(checkFileSystem, "put state_dir on a disk", "it is in memory: everything is gone after a restart of the machine")
	}
	return doctor.Passed(checkFileSystem, "local (type %#x)", magic)
}

// comfortable is how many times the floor should be free, or somebody should begin to look for more room.
const comfortable = 4

func spaceFinding(dir string, floor int64) doctor.Finding {
	free, err := store.FreeSpace(dir)
	if err != nil {
		return failed(checkSpace, err, "mend the file system")
	}
	return judgeSpace(free, floor)
}

func judgeSpace(free, floor int64) doctor.Finding {
	const cure = "free some space, or move state_dir to a larger disk"
	switch {
	case free < floor:
		return doctor.Failed(checkSpace, cure, "%d MiB are free: below disk_floor (%d MiB) no new deals are taken on", free>>20, floor>>20)
	case free < comfortable*floor:
		return doctor.Warned(checkSpace, cure, "%d MiB are free; below disk_floor (%d MiB) no new deals are taken on", free>>20, floor>>20)
	}
	return doctor.Passed(checkSpace, "%d MiB are free", free>>20)
}

// Each of a deal's commits waits for one write of this kind at least.
const (
	syncs     = 21
	syncBlock = 4 << 10
	slowSync  = 20 * time.Millisecond
)

func syncFinding(ctx context.Context, dir string) doctor.Finding {
	took, err := measureSync(ctx, dir)
	if err != nil {
		return failed(checkSync, err, "see that the state directory can be written to")
	}
	return judgeSync(took)
}

func judgeSync(took []time.Duration) doctor.Finding {
	slices.Sort(took)
	p50, most := took[len(took)/2], took[len(took)-1]
	text := fmt.Sprintf("%d writes of %d bytes: p50 %.1f ms, at most %.1f ms", len(took), syncBlock, p50.Seconds()*1000, most.Seconds()*1000)
	if p50 > slowSync {
		return doctor.Warned(checkSync, "put state_dir on a faster disk: a deal takes some twenty such writes", "%s", text)
	}
	return doctor.Passed(checkSync, "%s", text)
}

// measureSync writes to a file of its own, which it removes.
func measureSync(ctx context.Context, dir string) (took []time.Duration, err error) {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	block := make([]byte, syncBlock)
	for range syncs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		began := time.Now()
		if _, err := f.Write(block); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
	}
	return took, nil
}

// socketFinding looks at the control socket, if there is one: who may use it may release deals.
func socketFinding(path string) (doctor.Finding, bool) {
	info, err := os.Stat(path)
	if err != nil {
		return doctor.Finding{}, false
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return doctor.Failed(checkSocket, "chmod 600 "+path, "other users may give the daemon orders (mode %04o)", mode), true
	}
	return doctor.Passed(checkSocket, "%s is the daemon's user's alone", path), true
}

func (x *examiner) examineMasterKey() doctor.Examination {
	return examination(doctor.Machine, checkMaster, "", machineLimit, func(_ context.Context, report func(doctor.Finding)) {
		ref := x.cfg.MasterKey
		if _, err := masterKey(ref); err != nil {
			report(failed(checkMaster, err, `name where the key is; "dealseal keygen master FILE" makes one for a new house, and no other opens an old one`))
			return
		}
		if path, err := ref.Path(); err == nil && within(path, x.cfg.StateDir) {
			report(doctor.Warned(checkMaster, "keep it elsewhere, best as a systemd credential: whoever gets a copy of the state directory could read everything in it",
				"%s lies inside the state directory that it protects", ref))
			return
		}
		report(doctor.Passed(checkMaster, "%s can be read", ref))
	})
}

// within reports whether a path lies below a folder, whatever links lead there.
func within(path, dir string) bool {
	real := func(p string) string {
		if r, err := filepath.EvalSymlinks(p); err == nil {
			return r
		}
		return p
	}
	rel, err := filepath.Rel(real(dir), real(path))
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// examineTemplates renders one sample of each template.
func (x *examiner) examineTemplates() doctor.Examination {
	return examination(doctor.Machine, checkRendered, "", documentLimit, func(ctx context.Context, report func(doctor.Finding)) {
		r, err := x.renderer()
		if err != nil {
			report(failed(checkRendered, err, "\"make renderer\" fetches the file; name it as renderer.wasm"))
			return
		}
		for _, name := range slices.Sorted(maps.Keys(x.bundles)) {
			report(renderSample(ctx, r, x.bundles[name]).On(name))
		}
	})
}

func renderSample(ctx context.Context, r documents.Renderer, b *documents.Bundle) doctor.Finding {
	samples := b.Samples()
	if len(samples) == 0 {
		return doctor.Warned(checkRendered, "put a record into the template's folder samples/", "it has no sample to try it with")
	}
	smallest := slices.MinFunc(samples, func(x, y string) int {
		a, _ := b.File(x)
		c, _ := b.File(y)
		return len(a) - len(c)
	})
	record, _ := b.File(smallest)
	began := time.Now()
	out, err := r.Render(ctx, b, record)
	if err != nil {
		return failed(checkRendered, fmt.Errorf("%s: %w", smallest, err), "mend the template; \"dealseal template validate DIR\" shows more")
	}
	return doctor.Passed(checkRendered, "%s makes %d bytes in %d ms", smallest, len(out.PDF), time.Since(began).Milliseconds())
}
