package container

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/client"

	"github.com/zarpa-dev/zarpa"
)

// secretFiles are the values for one container, and the user that it runs as.
type secretFiles struct {
	values map[string][]byte
	user   string
}

func (r *runner) secrets(ctx context.Context, names []string) (map[string][]byte, error) {
	if len(names) == 0 {
		return nil, nil
	}
	if r.o.Secrets == nil {
		return nil, zarpa.Errorf(zarpa.Internal, "secrets: this driver was given none")
	}
	values, err := r.o.Secrets(ctx, names)
	if err != nil {
		return nil, fmt.Errorf("the secrets cannot be had: %w", err)
	}
	for _, name := range names {
		if _, ok := values[name]; !ok {
			return nil, zarpa.Errorf(zarpa.NotFound, "secret %q does not exist", name).WithHint("store it, or take it out of the deployment")
		}
	}
	return values, nil
}

// putSecrets writes the files into the volume of a container that was made and not started. They are on the
// engine's disk, in a volume that goes with its container, and nothing that inspects it shows them.
func (r *runner) putSecrets(ctx context.Context, id string, files secretFiles) error {
	archive, err := files.tar()
	if err != nil {
		return err
	}
	_, err = r.engine.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: secretsDir, Content: bytes.NewReader(archive)})
	if err != nil {
		return r.failure("write the secrets", err)
	}
	return nil
}

// tar holds the files, readable for the container's user alone. The number of a user that has a name is only known
// within the image: then everybody in the container may read them, which is that user.
func (f secretFiles) tar() ([]byte, error) {
	mode := int64(0o400)
	uid, gid := 0, 0
	if name, group, _ := strings.Cut(f.user, ":"); name != "" {
		n, err := strconv.Atoi(name)
		if err != nil || n < 0 {
			mode = 0o444
		} else {
			uid = n
		}
		if n, err := strconv.Atoi(group); err == nil && n >= 0 {
			gid = n
		}
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range slices.Sorted(maps.Keys(f.values)) {
		head := tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Uid: uid, Gid: gid, Size: int64(len(f.values[name]))}
		if err := w.WriteHeader(&head); err != nil {
			return nil, fmt.Errorf("pack secret %q: %w", name, err)
		}
		if _, err := w.Write(f.values[name]); err != nil {
			return nil, fmt.Errorf("pack secret %q: %w", name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack the secrets: %w", err)
	}
	return out.Bytes(), nil
}
