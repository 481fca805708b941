
"use strict";
(function () {
  var fragment = location.hash.slice(1);
  if (!/^i=[a-z2-7]{20,64},d=[a-z0-9.:\[\]-]{1,255},k=[a-z2-7]{40,64}$/.test(fragment)) { return; }
  var line = "commucat join 'commucat://" + location.host + "/#" + fragment + "'";
  document.getElementById("line").textContent = line;
  document.getElementById("good").hidden = false;
  document.getElementById("bad").hidden = true;
  document.getElementById("copy").addEventListener("click", function () {
    navigator.clipboard.writeText(line).then(function () {
      document.getElementById("copied").textContent = "Copied.";
    });
  });
})();
