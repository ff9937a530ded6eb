package main

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/target/container"
)

func TestEnginesAreStoppedAllAtOnce(t *testing.T) {
	t.Parallel()
	e := &engines{open: map[string]*openEngine{"away": {}, "here": {}}}
	var both sync.WaitGroup
	both.Add(2)
	err := e.each(func(*container.Driver) error {
		both.Done()
		both.Wait() // for the other one
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestTheSocketThatWasFoundIsKept(t *testing.T) {
	t.Parallel()
	named := zarpa.Target{Name: "t", Options: map[string]string{"host": "unix:///named.sock"}}
	if got := pinned(named, nil); got.Options["host"] != "unix:///named.sock" {
		t.Errorf("%v", got.Options)
	}
	found := zarpa.Target{Name: "t", Options: map[string]string{"quota": "3"}}
	if got := pinned(found, []string{"DOCKER_HOST=unix:///other.sock"}); got.Options["host"] != "" {
		t.Errorf("the environment decides: %v", got.Options)
	}
	got := pinned(found, []string{"HOME=/"})
	if !strings.HasPrefix(got.Options["host"], "unix:///") || filepath.Ext(got.Options["host"]) != ".sock" || got.Options["quota"] != "3" || found.Options["host"] != "" {
		t.Errorf("%v, was %v", got.Options, found.Options)
	}
}

func TestLoginIsTheUsersOwn(t *testing.T) {
	config := t.TempDir()
	t.Setenv("DOCKER_CONFIG", config)
	auths := `{"auths": {"registry.example": {"auth": "bWU6cGFzcw=="}, "https://index.docker.io/v1/": {"auth": "aHViOnBhc3M="}}}`
	if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(auths), 0o600); err != nil {
		t.Fatal(err)
	}
	for base, want := range map[string]container.Login{
		"registry.example/base:1": {Registry: "registry.example", Username: "me", Password: "pass"},
		"python:3.12-slim":        {Registry: dockerHub, Username: "hub", Password: "pass"},
		"other.example/base:1":    {},
	} {
		if got, err := login(t.Context(), base); err != nil || got != want {
			t.Errorf("%s: %+v, %v", base, got, err)
		}
	}
	if _, err := login(t.Context(), "No Name"); err == nil {
		t.Error("a bad name has a login")
	}
}

func TestReplicasOfATargetThatIsGoneAreForgotten(t *testing.T) {
	t.Parallel()
	p := &plane{data: t.TempDir()}
	replica := func(target string) string { return filepath.Join(p.targetDir(target), "replicas", "blue-0.aaaa") }
	for _, target := range []string{"here", "gone"} {
		if err := os.MkdirAll(replica(target), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.abandonTargets([]zarpa.Target{{Name: "here"}}); err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]bool{"here": true, "gone": false} {
		if _, err := os.Stat(replica(target)); (err == nil) != want {
			t.Errorf("%s: %v", target, err)
		}
	}
}
