package modelfile

import (
	"bufio"
	"io"
	"strconv"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// maxLightGBMHead bounds what stands before the trees: a name and a range for each feature.
const maxLightGBMHead = 16 << 20

// isLightGBM tells the first lines of LightGBM's text file.
func isLightGBM(head []byte) bool {
	s := strings.ReplaceAll(string(head[:min(len(head), 32)]), "\r\n", "\n")
	return strings.HasPrefix(s, "tree\nversion=") || strings.HasPrefix(s, "tree\nnum_class=")
}

// inspectLightGBM reads the lines before the first tree. They tell the version of the form, not that of
// LightGBM.
func inspectLightGBM(r io.Reader) (Info, error) {
	lines := bufio.NewReaderSize(io.LimitReader(r, maxLightGBMHead), windowSize)
	values := map[string]string{"max_feature_idx": "", "num_tree_per_iteration": ""}
	for {
		line, err := lines.ReadString('\n')
		line = strings.TrimRight(line, "\r\n")
		if strings.HasPrefix(line, "Tree=") || line == "end of trees" {
			break
		}
		if err != nil {
			return Info{}, zarpa.Errorf(zarpa.Invalid, "a LightGBM model without trees: it ends after %q", line[:min(len(line), 40)]).WithHint("copy or save the model again")
		}
		key, value, _ := strings.Cut(line, "=")
		if _, known := values[key]; known {
			values[key] = strings.Clone(value[:min(len(value), maxKey)])
		}
	}
	info := Info{Format: zarpa.FormatLightGBM, Framework: "lightgbm"}
	last, err := strconv.ParseInt(values["max_feature_idx"], 10, 32)
	if err != nil || last < 0 {
		return Info{}, zarpa.Errorf(zarpa.Invalid, "a LightGBM model with max_feature_idx=%.20s", values["max_feature_idx"]).WithHint("save the model again")
	}
	columns, _ := strconv.ParseInt(values["num_tree_per_iteration"], 10, 32) // absent is 0
	if columns == 1 {
		columns = 0
	}
	info.Signature = boosterSignature(last+1, columns)
	return info, nil
}
