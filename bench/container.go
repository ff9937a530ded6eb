package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// engineVariable names the engine that containers are measured on; without it the part says that it was
// left out.
const engineVariable = "DOCKER_HOST"

// measureContainers is its part: an image's size, what another version moves, and the time to the first
// answer from a container.
func (b *bench) measureContainers(ctx context.Context, r *report) error {
	host := variable(b.env, engineVariable)
	if host == "" {
		r.section("Containers").text("Left out: %s names no engine.", engineVariable)
		return nil
	}
	if err := b.besides(ctx); err != nil {
		return err
	}
	sizes, err := b.imageSizes(ctx, host)
	if err != nil {
		return err
	}
	p, err := b.up(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	pushed, err := p.pushes(ctx)
	if err != nil {
		return err
	}
	var added any
	if err := p.cli(ctx, &added, "target", "add", "engine", "--kind", "container", "--host", host); err != nil {
		return err
	}
	var all [][]span
	for i := range b.scale.deploys {
		b.say("containers: answer, %d of %d", i+1, b.scale.deploys)
		file, err := b.version(i + 1)
		if err != nil {
			return err
		}
		spans, err := p.firstAnswer(ctx, fmt.Sprintf("boxed-%d", i+1), file, "--target", "engine")
		if err != nil {
			return err
		}
		all = append(all, spans)
	}
	r.containers(sizes, pushed, all)
	return nil
}

// besides puts what images are made of beside the zarpa that is measured, unless it is there.
func (b *bench) besides(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(filepath.Dir(b.zarpa), "zarpa-score")); err == nil {
		return nil
	}
	b.say("build zarpa-score")
	build := exec.CommandContext(ctx, "make", "build")
	build.Dir = b.root
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("make build: %w\n%s", err, text)
	}
	return copyFile(filepath.Join(b.root, "bin", "zarpa-score"), filepath.Join(filepath.Dir(b.zarpa), "zarpa-score"))
}

// version is the iris model as its n-th version: with another text in its description, of field 6.
func (b *bench) version(n int) (string, error) {
	model, err := os.ReadFile(filepath.Join(b.root, "examples", "iris", "iris.onnx"))
	if err != nil {
		return "", err
	}
	const describes = 6<<3 | 2
	note := fmt.Sprintf("version %d, %d", n, os.Getpid())
	file := filepath.Join(b.temp, fmt.Sprintf("iris-%d.onnx", n))
	return file, os.WriteFile(file, append(append(model, describes, byte(len(note))), note...), 0o600)
}

// imageSize is that of one image, in bytes.
type imageSize struct {
	model             string
	archive, unpacked int64
	took, again       time.Duration
}

// imageSizes packages the examples: the archive holds the layers compressed, and the engine tells what
// they are without that.
func (b *bench) imageSizes(ctx context.Context, host string) ([]imageSize, error) {
	var sizes []imageSize
	for _, model := range []string{"iris", "digits"} {
		b.say("containers: image of %s", model)
		s := imageSize{model: model}
		archive, name := filepath.Join(b.temp, model+".tar"), "zarpa-bench/"+model+":1"
		for _, took := range []*time.Duration{&s.took, &s.again} {
			began := time.Now()
			cmd := exec.CommandContext(ctx, b.zarpa, "package", filepath.Join(b.root, "examples", model, model+".onnx"), "--output", "tar:"+archive, "--name", name)
			cmd.Env = append(slices.Clone(b.env), "ZARPA_DATA="+filepath.Join(b.temp, "package-"+model))
			if text, err := cmd.CombinedOutput(); err != nil {
				return nil, fmt.Errorf("zarpa package: %w\n%s", err, text)
			}
			*took = time.Since(began)
		}
		info, err := os.Stat(archive)
		if err != nil {
			return nil, err
		}
		s.archive = info.Size()
		docker := func(args ...string) (string, error) {
			text, err := exec.CommandContext(ctx, "docker", append([]string{"--host", host}, args...)...).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("docker %s: %w\n%s", strings.Join(args, " "), err, text)
			}
			return strings.TrimSpace(string(text)), err
		}
		_, loaded := docker("load", "--input", archive)
		text, inspected := docker("image", "inspect", "--format", "{{.Size}}", name)
		_, removed := docker("rmi", name)
		if err := errors.Join(loaded, inspected, removed); err != nil {
			return nil, err
		}
		if s.unpacked, err = strconv.ParseInt(text, 10, 64); err != nil {
			return nil, err
		}
		sizes = append(sizes, s)
	}
	return sizes, nil
}

// pushes are how many bytes the server's registry gained by a first version of a model's image, and by the second.
func (p *plane) pushes(ctx context.Context) ([]int64, error) {
	api, token, err := p.access()
	if err != nil {
		return nil, err
	}
	config := filepath.Join(p.bench.temp, "docker-config")
	if err := os.MkdirAll(config, 0o700); err != nil {
		return nil, err
	}
	login := fmt.Sprintf(`{"auths": {%q: {"username": "bench", "password": %q}}}`, api, token)
	if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(login), 0o600); err != nil {
		return nil, err
	}
	var gained []int64
	before, err := folderSize(filepath.Join(p.data, "registry"))
	if err != nil {
		return nil, err
	}
	for n := range 2 {
		file, err := p.bench.version(1000 + n)
		if err != nil {
			return nil, err
		}
		cmd := exec.CommandContext(ctx, p.bench.zarpa, "package", file, "--output", fmt.Sprintf("oci:%s/iris:%d", api, n+1))
		cmd.Env = append(slices.Clone(p.bench.env), "DOCKER_CONFIG="+config, "ZARPA_DATA="+filepath.Join(p.bench.temp, "package-push"))
		if text, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("zarpa package: %w\n%s", err, text)
		}
		after, err := folderSize(filepath.Join(p.data, "registry"))
		if err != nil {
			return nil, err
		}
		gained, before = append(gained, after-before), after
	}
	return gained, nil
}

func folderSize(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}

// containers reports it.
func (r *report) containers(sizes []imageSize, pushed []int64, all [][]span) {
	s := r.section("Containers")
	const mega = 1e6
	var rows [][]string
	for _, i := range sizes {
		rows = append(rows, []string{
			i.model, fmt.Sprintf("%.1f", float64(i.archive)/mega), fmt.Sprintf("%.1f", float64(i.unpacked)/mega), ms(i.took.Seconds() * 1000), ms(i.again.Seconds() * 1000),
		})
	}
	s.text("Images of the examples by `zarpa package`, on no base. The archive holds compressed layers; unpacked is what the engine tells.")
	s.table([]string{"model", "archive, MB", "unpacked, MB", "first time, ms", "again, ms"}, rows)
	s.text("Pushed into the server's registry: %.2f MB for a first version of iris, %.1f kB for a second one.", float64(pushed[0])/mega, float64(pushed[1])/1000)
	s.text("From a model's file to the first answer from a container, as above, each time with a new version of the model. The first one brings an image into an engine " +
		"that has none of its layers. Milliseconds.")
	rows = nil
	var last []float64
	for i, sp := range all[0] {
		values := stepTimes(all, i)
		rows = append(rows, []string{sp.name, ms(values[0]), ms(median(values)), ms(slices.Max(values))})
		last = values
	}
	s.table([]string{"step", "first", fmt.Sprintf("median of %d", len(all)), "longest"}, rows)
	longest := slices.Max(last) / 1000
	r.aim(aim{
		what: "from `zarpa deploy FILE --target ENGINE` to the first answer (longest)", want: "≤ 3 s", got: fmt.Sprintf("%.2f s", longest), met: longest <= 3,
		bound: "The table says which step takes the time.",
	})
	archive, unpacked := float64(sizes[0].archive)/mega, float64(sizes[0].unpacked)/mega
	r.aim(aim{what: "image of iris, compressed", want: "≤ 20 MB", got: fmt.Sprintf("%.1f MB", archive), met: archive <= 20, bound: "ONNX Runtime is half of it."})
	r.aim(aim{
		what: "image of iris, unpacked", want: "≤ 40 MB", got: fmt.Sprintf("%.1f MB", unpacked), met: unpacked <= 40,
		bound: "ONNX Runtime is 23.7 MB, the system's libraries 5.4 MB, the rest is zarpa-score.",
	})
	r.aim(aim{
		what: "a second version pushes its model's layer alone", want: "< 100 kB", got: fmt.Sprintf("%.1f kB", float64(pushed[1])/1000), met: pushed[1] < 100_000,
		bound: "Manifest, configuration and model.",
	})
}

// access is the address of the control API, and its token.
func (p *plane) access() (address, token string, err error) {
	var server struct {
		API string `json:"api"`
	}
	text, err := os.ReadFile(filepath.Join(p.data, "server.json"))
	if err == nil {
		err = json.Unmarshal(text, &server)
	}
	if err != nil {
		return "", "", err
	}
	secret, err := os.ReadFile(filepath.Join(p.data, "admin-token"))
	return strings.TrimPrefix(server.API, "http://"), strings.TrimSpace(string(secret)), err
}
