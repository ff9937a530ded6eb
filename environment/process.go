package environment

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// afterKill bounds the wait for the output of a program that was ended.
const afterKill = 5 * time.Second

// elsewhere are variables by which pip, uv or Python would install or look in other places than the
// environment that is built.
var elsewhere = []string{
	"PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONEXECUTABLE", "PYTHONDONTWRITEBYTECODE",
	"VIRTUAL_ENV", "CONDA_PREFIX", "__PYVENV_LAUNCHER__", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER",
	"PIP_PYTHON", "PIP_REQUIREMENT", "PIP_EDITABLE", "PIP_LOG", "PIP_REPORT", "PIP_DRY_RUN",
	"UV_TARGET", "UV_PREFIX", "UV_SYSTEM_PYTHON", "UV_PYTHON", "UV_PROJECT_ENVIRONMENT", "TMPDIR",
}

// environ is the environment of the programs of a build: the user's, without what leads elsewhere.
// User packages are off, so that a pip.conf that wishes them does not stop the build.
func (c *Cache) environ() []string {
	env := slices.DeleteFunc(slices.Clone(c.opts.Env), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return slices.Contains(elsewhere, name)
	})
	return append(env,
		"PATH="+strings.Join(c.opts.Path, string(os.PathListSeparator)),
		"PIP_USER=0", "PIP_DISABLE_PIP_VERSION_CHECK=1", "PIP_NO_INPUT=1", "PIP_PROGRESS_BAR=off", "PIP_NO_COLOR=1",
		"UV_PYTHON_DOWNLOADS=never", "UV_NO_PROGRESS=1", "UV_NO_CONFIG=1", "NO_COLOR=1", "PYTHONNOUSERSITE=1", "PYTHONUTF8=1",
	)
}

// ownGroup makes a program lead a process group, and ends the whole group with the context: what
// installs packages starts compilers.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = afterKill
}

// step is one program of a build.
type step struct {
	phase   string // what it does, for errors
	program string
	args    []string
	env     []string // added to that of the build
	quiet   bool     // its command line is no news
}

// command prepares a step. Its program inherits the lock, so that nobody builds in its folder while it
// lives, even if this process does not.
func (b *builder) command(ctx context.Context, s step) *exec.Cmd {
	cmd := b.cache.command(ctx, s.program, s.args...)
	cmd.Dir = b.files
	cmd.Env = append(append(cmd.Env, "TMPDIR="+b.temp), s.env...)
	cmd.ExtraFiles = []*os.File{b.lock.file}
	return cmd
}

// run runs a step; its output goes to the log.
func (b *builder) run(ctx context.Context, s step) error {
	if !s.quiet {
		b.log.say("$ %s %s", s.program, strings.Join(s.args, " "))
	}
	cmd := b.command(ctx, s)
	cmd.Stdout, cmd.Stderr = b.log, b.log
	err := cmd.Run()
	b.log.flush()
	if err != nil {
		return fmt.Errorf("run %s: %w", s.program, err)
	}
	return nil
}
