package main

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/config"
)

const deploy = "../../deploy/"

func TestTheExamplesOfThePackageAreGoodConfigurations(t *testing.T) {
	c, err := config.Load(deploy + "examples/dealseal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]bool{}
	for i := range c.Loaded {
		file := &c.Loaded[i]
		kinds[file.CRM.Kind] = true
		if err := (&tenant{file: file}).decodeConnector(newLoginKeys(nil)); err != nil {
			t.Error(err)
		}
	}
	if !kinds["salesforce"] || !kinds["hubspot"] {
		t.Errorf("the examples are of %v", kinds)
	}
}

func TestTheManualNamesEveryCommand(t *testing.T) {
	page, err := os.ReadFile(deploy + "dealseal.8")
	if err != nil {
		t.Fatal(err)
	}
	tags := regexp.MustCompile(`(?m)^\.TP\n\.B\S* (.*)$`).FindAllStringSubmatch(string(page), -1)
	var named []string
	for _, tag := range tags {
		named = append(named, strings.FieldsFunc(tag[1], func(r rune) bool { return r == ' ' || r == ',' || r == '"' })...)
	}
	text := " " + strings.Join(named, " ") + " "
	for _, c := range commands() {
		if !strings.Contains(text, " "+c.name+" ") {
			t.Errorf("deploy/dealseal.8 does not name %q", c.name)
		}
	}
}

func TestTheUnitIsExposedAsLittleAsPromised(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("SKIPPED, the unit is not judged: systemd-analyze is missing")
	}
	out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", deploy+"dealseal.service").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	found := regexp.MustCompile(`Overall exposure level for dealseal.service: ([0-9.]+)`).FindSubmatch(out)
	if found == nil {
		t.Fatalf("no level in:\n%s", out)
	}
	if level, err := strconv.ParseFloat(string(found[1]), 64); err != nil || level > 1.5 {
		t.Errorf("the exposure level is %s, at most 1.5 is wanted:\n%s", found[1], out)
	}
}
