//go:build conformance

package conformance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// program is a judge that answers lines of requests with lines of JSON.
type program struct {
	mu     sync.Mutex
	in     io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer
}

// start runs a judge until the test ends.
func start(t *testing.T, name string, args ...string) *program {
	t.Helper()
	p := &program{}
	cmd := exec.Command(name, args...)
	cmd.Stderr = &p.stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.in, p.out = in, bufio.NewReaderSize(out, 1<<20)
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return p
}

// ask sends a request and reads the answer into v, which stays as it is where the answer has nothing for it.
func (p *program) ask(v any, request ...string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := io.WriteString(p.in, strings.Join(request, "\t")+"\n"); err != nil {
		return fmt.Errorf("%w: %s", err, p.stderr.String())
	}
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("%w: %s", err, p.stderr.String())
	}
	var failed struct{ Error string }
	if err := json.Unmarshal(line, &failed); err != nil {
		return err
	}
	if failed.Error != "" {
		return errors.New(failed.Error)
	}
	return json.Unmarshal(line, v)
}

// opinions is what the judges that run as programs say of a file's signatures.
type opinions struct {
	Signatures []opinion
}

type opinion struct {
	Field         string
	Indication    string
	SubIndication string `json:"sub_indication"`
	Level         string
	Errors        []string
	Warnings      []string
	Coverage      string
	Modification  string
	DocMDP        *bool `json:"docmdp_ok"`
}

// startDSS and startPyHanko return nil where the judge could not be fetched.
func startDSS(t *testing.T, root string) *program {
	t.Helper()
	jar := work(t, "judge", "judge-1.jar")
	if _, err := os.Stat(jar); err != nil {
		return nil
	}
	return start(t, "java", "-Xmx1g", "-cp", jar+":"+work(t, "judge", "lib")+"/*", "Judge", root)
}

func startPyHanko(t *testing.T, root string) *program {
	t.Helper()
	python := work(t, "venv", "bin", "python")
	if err := exec.Command(python, "-c", "import pyhanko").Run(); err != nil {
		return nil // there is none, or one without pyHanko, whose index could not be reached
	}
	return start(t, python, "judge.py", root)
}
