package sqlite_test

import (
	"path/filepath"
	"sync"
	"testing"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/store/sqlite"
	"github.com/zarpa-dev/zarpa/store/storetest"
)

// TestStoreKeepsTheContract runs the suite. The folder's name has all that a URI would misread.
func TestStoreKeepsTheContract(t *testing.T) {
	t.Parallel()
	var paths sync.Map
	open := func(t *testing.T, path string) zarpa.Store {
		t.Helper()
		s, err := sqlite.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		paths.Store(s, path)
		return s
	}
	storetest.Run(t,
		func(t *testing.T) zarpa.Store { return open(t, filepath.Join(t.TempDir(), "a ?b%20#ñ&c=d.db")) },
		func(t *testing.T, s zarpa.Store) zarpa.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			path, _ := paths.Load(s)
			return open(t, path.(string))
		})
}
