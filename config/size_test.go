package config

import (
	"strings"
	"testing"
)

func TestSizesAreReadWithTheirUnit(t *testing.T) {
	for text, want := range map[string]Size{"512KiB": 512 << 10, "256MiB": 256 << 20, "2 GiB": 2 << 30, "1TiB": 1 << 40} {
		var got Size
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "256", "256MB", "-1MiB", "1.5GiB", "MiB", "999999999TiB", "1MiB\n"} {
		var got Size
		if err := got.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is read as %d", text, got)
		}
	}
}

func TestTheDiskFloorHasADefaultAndALeast(t *testing.T) {
	c, err := load(t, goodMain, goodTenant)
	if err != nil || c.DiskFloor != 256<<20 {
		t.Errorf("the default is %d bytes (%v)", c.DiskFloor, err)
	}
	for floor, word := range map[string]string{"1MiB": "at least 16MiB", "lots": "not a size"} {
		_, err := load(t, goodMain+"disk_floor: "+floor+"\n", goodTenant)
		if err == nil || !strings.Contains(err.Error(), word) || !strings.Contains(err.Error(), "dealseal.yaml:10") {
			t.Errorf("disk_floor: %s gives %v", floor, err)
		}
	}
}
