package store

import (
	"fmt"
	"testing"
)

func TestAConnectionKeepsTheStatementsThatAreUsed(t *testing.T) {
	s, _ := newStore(t)
	conn, err := s.read.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask := func(query string) {
		t.Helper()
		var n int
		if err := conn.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
			t.Fatal(err)
		}
	}
	const daily = "SELECT count(*) FROM sealings"
	var last string
	for i := range 3 * maxCompiled { // as many forms as people search in
		last = fmt.Sprintf("SELECT count(*) FROM sealings WHERE seq <> %d", i)
		ask(last)
		ask(daily)
	}
	if err := conn.Raw(func(driver any) error {
		c := driver.(*compiledConn)
		if len(c.idle) != maxCompiled {
			t.Errorf("%d statements are kept, want %d", len(c.idle), maxCompiled)
		}
		for _, query := range []string{daily, last} {
			if _, kept := c.idle[query]; !kept {
				t.Errorf("%s is compiled each time", query)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
