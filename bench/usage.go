package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ticks is USER_HZ, in which /proc counts: 100 on every architecture that Go has.
const ticks = 100

// member is a process of a contestant; when it began tells it from a later one with its number.
type member struct {
	pid   int
	began string
}

// family are the processes of a contestant: the one that was started, those of its session, and
// what any of them started, in other sessions too.
func family(leader int) []member {
	files, _ := filepath.Glob("/proc/[0-9]*/stat") // none on systems without /proc, as the report says
	all := make(map[int]stat, len(files))
	for _, f := range files {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err != nil {
			continue
		}
		if s, ok := statOf(strconv.Itoa(pid)); ok { // else it ended meanwhile
			all[pid] = s
		}
	}
	in := map[int]bool{leader: true}
	for grown := true; grown; {
		grown = false
		for pid, s := range all {
			if !in[pid] && (s.session == leader || in[s.parent]) {
				in[pid], grown = true, true
			}
		}
	}
	var list []member
	for pid := range in {
		if s, ok := all[pid]; ok {
			list = append(list, member{pid, s.began})
		}
	}
	return list
}

// kill ends a member that is still the same process.
func (m member) kill() {
	if s, ok := statOf(strconv.Itoa(m.pid)); ok && s.began == m.began {
		_ = syscall.Kill(m.pid, syscall.SIGKILL) // one that ended meanwhile is no failure
	}
}

// processor is the processor time, in seconds, that the process and all of its family have used,
// those included that ended and were waited for.
func (p *process) processor() float64 {
	if !p.leads {
		s, _ := statOf(strconv.Itoa(p.pid))
		return s.used
	}
	total := 0.0
	for _, m := range family(p.pid) {
		s, _ := statOf(strconv.Itoa(m.pid))
		total += s.used
	}
	return total
}

// ownProcessor is that of this process, to the microsecond.
func ownProcessor() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// statOf reads a process's line; false when it ended, or on systems without /proc.
func statOf(pid string) (stat, bool) {
	text, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return stat{}, false
	}
	s, err := parseStat(string(text))
	return s, err == nil
}

// stat is what proc_pid_stat(5) says.
type stat struct {
	parent, session int
	began           string
	used            float64 // seconds, with those of children that ended
}

// parseStat reads the parent, the session and the start, fields 4, 6 and 22, and sums user and
// system times, fields 14 to 17. The name in field 2 may hold anything, parentheses included.
func parseStat(text string) (stat, error) {
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return stat{}, fmt.Errorf("stat: %d fields after the name", len(fields))
	}
	s := stat{began: fields[19]}
	var errs [6]error
	s.parent, errs[4] = strconv.Atoi(fields[1])
	s.session, errs[5] = strconv.Atoi(fields[3])
	for i, f := range fields[11:15] {
		var t float64
		t, errs[i] = strconv.ParseFloat(f, 64)
		s.used += t / ticks
	}
	return s, errors.Join(errs[:]...)
}

// memory is what processes have in memory, in MiB.
type memory struct {
	Resident float64 // all of it; pages that several share count for each
	Own      float64 // without pages of files, which processes of one binary share
	Share    float64 // all of it, pages that several share divided among them
}

func memoryOf(pid int) (memory, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return memory{}, err
	}
	rollup, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
	if err != nil {
		return memory{}, err
	}
	return memory{statusMiB(string(text), "VmRSS"), statusMiB(string(text), "RssAnon"), statusMiB(string(rollup), "Pss")}, nil
}

// memory sums that of the process and all of its family.
func (p *process) memory() memory {
	var total memory
	for _, member := range family(p.pid) {
		m, err := memoryOf(member.pid)
		if err != nil {
			continue // ended meanwhile
		}
		total.Resident += m.Resident
		total.Own += m.Own
		total.Share += m.Share
	}
	return total
}

func statusMiB(status, name string) float64 {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			kib, _ := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			return kib / 1024
		}
	}
	return 0
}

// scheduled is the time that all threads of a process ran, in seconds, to the nanosecond: ticks are
// too coarse for an idle process. Threads that ended are not in it.
func scheduled(pid int) float64 {
	files, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*", "schedstat"))
	total := 0.0
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that ended meanwhile
		}
		ns, _, _ := strings.Cut(string(text), " ")
		n, _ := strconv.ParseFloat(ns, 64)
		total += n / 1e9
	}
	return total
}
