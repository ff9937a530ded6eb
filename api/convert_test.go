package api_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/api"
)

type convertFunc = func(context.Context, zarpa.Model, zarpa.ConversionSpec, func(string)) (zarpa.Conversion, error)

func TestConversionsAreBounded(t *testing.T) {
	t.Parallel()
	began, end := make(chan struct{}), make(chan struct{})
	s := newServerThat(t, func(ctx context.Context, _ zarpa.Model, _ zarpa.ConversionSpec, _ func(string)) (zarpa.Conversion, error) {
		began <- struct{}{}
		select {
		case <-end:
		case <-ctx.Done():
		}
		return zarpa.Conversion{Converter: "done"}, nil
	})
	_, err := s.store.Nouns().Models.Create(t.Context(), zarpa.Model{Name: "churn", Format: zarpa.FormatXGBoost})
	if err != nil {
		t.Fatal(err)
	}
	answers := make(chan string, api.DefaultConversions)
	convert := func() {
		_, answer := s.ask(t, http.MethodPost, "/v1/models/churn/convert", "{}")
		answers <- answer
	}
	for range api.DefaultConversions {
		go convert() // ends when end is closed
		<-began
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.http.URL+"/v1/models/churn/convert", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer secret")
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.http.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") != "10" {
		t.Errorf("one too many: %d, Retry-After %q", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	close(end)
	for range api.DefaultConversions {
		if answer := <-answers; !strings.Contains(answer, `"converter":"done"`) {
			t.Errorf("one that began: %s", answer)
		}
	}
	go convert()
	<-began
	if answer := <-answers; !strings.Contains(answer, `"converter":"done"`) {
		t.Errorf("one after they ended: %s", answer)
	}
}
