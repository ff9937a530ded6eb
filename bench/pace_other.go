//go:build !linux

package main

import "time"

func sharpenTimers() {}

func sleepUntil(t time.Time) { time.Sleep(time.Until(t)) }
